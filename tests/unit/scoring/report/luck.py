"""How often the report takes luck for skill, and how much skill it takes to be seen: `python -m tests.unit.scoring.report.luck`.

Plays many traders of each kind on markets of their own and prints what the report said of them. docs/report.md has the table.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Final

from services.scoring.report import build
from services.scoring.report.model import Evidence
from tests.unit.scoring.report.market import Plan, given

MARKETS: Final = 400
KINDS: Final[dict[str, dict[str, float]]] = {
    "no skill: positions one after the other": {"held": 4, "every": 4},
    "no skill: stops and targets": {"held": 8, "every": 8, "stop": 0.01},
    "no skill: overlapping, one view kept for long": {"held": 10, "every": 2, "turns": 0.03},
    "no skill: the same, stops and targets": {"held": 10, "every": 2, "turns": 0.03, "stop": 0.01},
    "no skill: always long in a rising market": {"held": 10, "every": 2, "drift": 0.001, "long_only": True},
    "knows the way in 10 % of positions": {"held": 4, "every": 4, "skill": 0.1},
    "knows the way in 20 % of positions": {"held": 4, "every": 4, "skill": 0.2},
    "knows the way in 40 % of positions": {"held": 4, "every": 4, "skill": 0.4},
}


def main() -> None:
    """Print a table in Markdown."""
    out = sys.stdout
    out.write("| trader | positions | said: skill | said: worse than chance |\n|---|---|---|---|\n")
    for name, changes in KINDS.items():
        said: Counter[Evidence] = Counter()
        opened = 0
        for seed in range(MARKETS):
            # 600 bars of three symbols that share 60 % of their variance.
            report = build(given(Plan(seed=seed, bars=600, common=0.6, **changes)))  # type: ignore[arg-type]
            said[report.verdict.evidence] += 1
            opened += report.counts.opened
        share = {evidence: said[evidence] / MARKETS for evidence in Evidence}
        out.write(f"| {name} | {opened / MARKETS:.0f} | {share[Evidence.SKILL]:.1%} | {share[Evidence.HARM]:.1%} |\n")
        out.flush()


if __name__ == "__main__":
    main()
