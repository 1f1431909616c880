"""How often the report takes luck for skill, through the whole chain, and how large an edge it finds how often.

Each row plays traders of one habit on markets of their own: signals, the judge's fills at the default costs, and the report with its
random traders and its sentence. The first rows have no skill: what is said of them should be *no evidence*. The last ones know the way
in a share of their signals. Markets are random walks of 300 bars of three symbols, 600 for traders who place orders every twelfth bar,
and stretches of as many days of the demo's stocks.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from benchmarks.habits import HABITS, WALKS, played, stocks_from, traded
from benchmarks.harness import Measured, Target, run_alone, say
from services.scoring.report import ReportInput
from services.scoring.report.build import judge
from services.scoring.report.model import Evidence

BARS: Final = 300
MOMENTS: Final = 50
"""Times at which a trader places orders, at least; with fewer the report says nothing, and the row would show nothing."""
MARKETS: Final = 120
QUICK_MARKETS: Final = 10
MOST: Final = 5.0
"""Per cent of traders without skill that may be called skilled."""
STOCKS: Final = "the demo's stocks"
POWER: Final = (0.05, 0.1, 0.2, 0.4)


class Said(NamedTuple):
    """What the report said of one trader."""

    evidence: Evidence
    positions: int
    mean: float
    """Of a position's net return."""


@dataclass(frozen=True)
class Row:
    """One kind of trader on one kind of market."""

    habit: str
    market: str
    skill: float = 0.0


async def measure(quick: bool) -> Measured:  # noqa: FBT001 - the harness' signature
    """Play every row's traders, on all cores."""
    markets = QUICK_MARKETS if quick else MARKETS
    rows = [Row(habit, market) for habit in HABITS for market in (*WALKS, STOCKS)]
    rows += [Row("market entries", "driftless", skill) for skill in POWER]
    found: list[dict[str, Any]] = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for row in rows:
            said = await asyncio.to_thread(_said_of, pool, row, markets)
            found.append(_figures(row, said))
            say(str(found[-1]))
    no_skill = [figures["said skill, %"] for figures, row in zip(found, rows, strict=True) if not row.skill]
    return Measured(
        rows=found,
        setting={
            "markets a row": markets,
            "bars": f"{BARS}; {MOMENTS} times those between signals where that is more",
            "symbols": 3,
            "costs": "defaults of `scoring`",
        },
        targets=[Target("luck called skill, in any row", MOST, at_least=False, got=max(no_skill), unit="%")],
        notes=[f"Of {markets} traders a share of 2 % has a 95 % interval of about {_half_width(0.02, markets):.1f} points to either side."],
    )


def judged(row: Row, seed: int, bars: int | None = None) -> Said:
    """Return what the report says of the trader and market number `seed` of a row."""
    bars = bars_of(row) if bars is None else bars
    given = _given(row, seed, bars)
    found = judge(given, first_kind_alone=True)
    if found.verdict.evidence in {Evidence.SKILL, Evidence.HARM}:
        # Where one kind of random trader allows nothing to be said, two do not either: the second is played for the others alone.
        found = judge(given)
    return Said(found.verdict.evidence, found.counts.opened, float(found.trades.net.mean()) if len(found.trades) else 0.0)


def bars_of(row: Row) -> int:
    """Return how long the row's markets are: a trader who waits long between signals needs more of it to make enough of them."""
    return max(BARS, MOMENTS * HABITS[row.habit].every)


def _given(row: Row, seed: int, bars: int) -> ReportInput:
    habit = HABITS[row.habit]
    if row.market == STOCKS:
        return traded(habit, stocks_from(seed, bars), seed, row.skill)
    return played(habit, WALKS[row.market], seed, bars=bars, skill=row.skill)


def _said_of(pool: ProcessPoolExecutor, row: Row, markets: int) -> list[Said]:
    one: Callable[[int], Said] = partial(judged, row)
    return list(pool.map(one, range(markets), chunksize=5))


def _figures(row: Row, said: list[Said]) -> dict[str, Any]:
    counts = Counter(one.evidence for one in said)
    return {
        "trader": f"knows the way in {row.skill:.0%}" if row.skill else row.habit,
        "market": row.market,
        "positions": round(sum(one.positions for one in said) / len(said)),
        "mean net return, bp": round(1e4 * sum(one.mean for one in said) / len(said), 2),
        "said skill, %": round(100 * counts[Evidence.SKILL] / len(said), 1),
        "said worse than chance, %": round(100 * counts[Evidence.HARM] / len(said), 1),
        "said too few, %": round(100 * counts[Evidence.TOO_FEW] / len(said), 1),
    }


def _half_width(share: float, of: int) -> float:
    return float(196 * (share * (1 - share) / of) ** 0.5)


if __name__ == "__main__":
    sys.exit(run_alone("luck", __doc__, measure))
