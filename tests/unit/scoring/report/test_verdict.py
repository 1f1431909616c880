"""The sentence: skill is claimed where everything allows it, and nowhere else."""

from __future__ import annotations

import pytest

from schemas import ExitReason
from services.scoring.report.model import Counts, Estimate, Evidence, Overlap, Random, RandomTraders, Verdict
from services.scoring.report.verdict import reached

GOOD, BAD = Estimate(0.01, 0.002, 0.018), Estimate(0.01, -0.002, 0.022)
WORSE = Estimate(-0.01, -0.018, -0.002)


def said(moved: float, tossed: float, edge: Estimate = GOOD, alone: int = 200) -> Verdict:
    kinds = tuple(RandomTraders(name, "", (0.0,) * 1_000, 0.0, better) for name, better in (("moved", moved), ("tossed", tossed)))
    counts = Counts(
        signals=300, completed_by={ExitReason.HORIZON: 250}, closed_early={}, never_opened={}, unscored=0, unusable=0, duplicates=0
    )
    return reached(counts, Overlap(peak=3, independent=alone, block=1), Random(250, 0.01, edge, kinds))


@pytest.mark.parametrize(
    ("verdict", "evidence", "sentence"),
    [
        (said(0.99, 0.98), Evidence.SKILL, "Better than 98 % of 1,000 random traders: evidence of skill in this period."),
        (said(1.0, 1.0), Evidence.SKILL, "Better than all 1,000 random traders: evidence of skill in this period."),
        (said(0.43, 0.6), Evidence.NONE, "Better than 43 % of 1,000 random traders: no evidence of skill."),
        (said(0.99, 0.9), Evidence.NONE, "Better than 90 % of 1,000 random traders: no evidence of skill."),
        (said(0.9, 0.999), Evidence.NONE, "Better than 90 % of 1,000 random traders: no evidence of skill."),
        (said(0.99, 0.998, BAD), Evidence.NONE, "Better than 99 % of 1,000 random traders, yet no clear evidence of skill"),
        (said(0.01, 0.004, WORSE), Evidence.HARM, "Better than 0.4 % of 1,000 random traders: worse than chance explains."),
        (said(0.0, 0.0, WORSE), Evidence.HARM, "Worse than all 1,000 random traders: worse than chance explains."),
        (said(0.01, 0.2, WORSE), Evidence.NONE, "Better than 1 % of 1,000 random traders: no evidence of skill."),
        (said(0.99, 0.99, alone=29), Evidence.TOO_FEW, "Better than 99 % of 1,000 random traders, but 250 trades are too few"),
        (said(0.99, 0.99, Estimate(0.01, None, None)), Evidence.TOO_FEW, "Better than 99 % of 1,000 random traders, but 250 trades"),
    ],
)
def test_what_is_said(verdict: Verdict, evidence: Evidence, sentence: str) -> None:
    assert verdict.evidence is evidence
    assert verdict.sentence.startswith(sentence)
