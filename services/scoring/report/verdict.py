"""The report in a sentence. Skill is claimed only where random traders, the interval and the number of trades all allow it."""

from __future__ import annotations

from typing import Final

from services.scoring.report import number_format
from services.scoring.report.model import Counts, Evidence, Overlap, Random, Verdict

FEW: Final = 30
"""Independent positions below which nothing is said of skill."""
BETTER_THAN: Final = 0.975
"""The share of both kinds of random traders that luck alone seldom beats: one in forty does."""


def reached(counts: Counts, overlap: Overlap | None, random: Random | None) -> Verdict:
    """Return what can be said.

    Skill: better than 97.5 % of both kinds of random traders, and the interval of what a position made more than theirs did is
    above zero. The first asks whether the moments were well chosen, and the second whether a few positions made it all.
    """
    if overlap is None:
        said = "No signal was judged" if counts.signals == 0 else "No position was opened"
        return Verdict(Evidence.NOTHING, f"{said}: there is nothing to say about skill.")
    if random is None:
        return Verdict(Evidence.NOTHING, "There is nothing to compare with, so nothing to say about skill: closed bars are missing.")
    if overlap.independent < FEW or random.edge.low is None or random.edge.high is None:
        few = number_format.counted(counts.opened, "trade")
        return Verdict(Evidence.TOO_FEW, f"{_least(random)}, but {few} are too few to tell skill from luck.")
    return _compared(random, random.edge.low, random.edge.high)


def _compared(random: Random, low: float, high: float) -> Verdict:
    edge = number_format.mean_return(random.edge)
    if max(kind.better_than for kind in random.kinds) <= 1 - BETTER_THAN and high < 0:
        return Verdict(Evidence.HARM, f"{_least(random)}: worse than chance explains. A position made {edge} against theirs.")
    if min(kind.better_than for kind in random.kinds) < BETTER_THAN:
        return Verdict(Evidence.NONE, f"{_least(random)}: no evidence of skill.")
    if low <= 0:
        return Verdict(
            Evidence.NONE,
            f"{_least(random)}, yet no clear evidence of skill: the interval of what a position made more than theirs reaches below "
            f"zero ({edge}).",
        )
    return Verdict(
        Evidence.SKILL,
        f"{_least(random)}: evidence of skill in this period. A position made {edge} more than theirs. What has been need not go on.",
    )


def _least(random: Random) -> str:
    """Return the beginning of the sentence: where the strategy lies among those random traders that do best against it."""
    hardest = min(random.kinds, key=lambda kind: kind.better_than)
    traders, share = len(hardest.means), number_format.percentile(hardest.better_than)
    if share == "none":
        return f"Worse than all {traders:,} random traders"
    return f"Better than {share}{' ' if share == 'all' else ' of '}{traders:,} random traders"
