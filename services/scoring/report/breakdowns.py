"""The positions cut by a property: breakdowns, and conviction's calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from schemas import SignalOutcome
from services.scoring.report import number_format
from services.scoring.report.model import Breakdown, Calibration, Row
from services.scoring.report.statistics import block_length, bootstrap_mean, rank_correlation, wilson
from services.scoring.report.trades import Trades, trades_of

_MOST_ROWS: Final = 25
_BUCKETS: Final = 5
"""Buckets of conviction: 0 to 0.2 and so on, the last one with 1.0."""

_Property = Callable[[SignalOutcome], str]
_ALWAYS: Final[dict[str, _Property]] = {
    "symbol": lambda one: one.symbol,
    "action": lambda one: one.action.value,
    "source": lambda one: one.source,
    "vision": lambda one: one.vision,
}
_WHERE_IT_VARIES: Final[dict[str, _Property]] = {"interval": lambda one: one.interval, "mode": lambda one: one.mode}


def bucket(conviction: float) -> str:
    """Return the name of the bucket that a conviction lies in; a bucket holds its lower edge."""
    index = min(_BUCKETS - 1, int(conviction * _BUCKETS + 1e-9))
    return f"{index / _BUCKETS:.1f} to {(index + 1) / _BUCKETS:.1f}"


def breakdowns(outcomes: Sequence[SignalOutcome], seed: int) -> tuple[Breakdown, ...]:
    """Return the breakdowns by every property; `outcomes` are distinct by id. Of very many symbols those with most signals."""
    shown = _ALWAYS | {by: key for by, key in _WHERE_IT_VARIES.items() if len(set(map(key, outcomes))) > 1}
    return tuple(Breakdown(by, _rows(_grouped(outcomes, key), seed)) for by, key in shown.items())


def calibration(outcomes: Sequence[SignalOutcome], trades: Trades, block: int, seed: int) -> Calibration:
    """Return how conviction went with outcome."""
    grouped = _grouped(outcomes, lambda one: bucket(one.conviction))
    rows = tuple(_row(name, grouped[name], seed) for name in sorted(grouped))
    ranks = rank_correlation(trades.conviction, trades.net, block=block, seed=seed)
    if ranks is None:
        sentence = "Conviction or return never changes, so nothing can be said of how they go together."
    elif ranks.low is None or ranks.high is None:
        sentence = f"{number_format.counted(len(trades), 'position')} are too few to say how conviction and return go together."
    elif ranks.low > 0:
        sentence = f"Higher conviction went with higher returns: rank correlation {number_format.correlation(ranks)}."
    elif ranks.high < 0:
        sentence = f"Higher conviction went with LOWER returns: rank correlation {number_format.correlation(ranks)}."
    else:
        sentence = (
            f"Conviction says nothing that can be told from chance about the return: rank correlation {number_format.correlation(ranks)}."
        )
    return Calibration(rows, ranks, sentence)


def _grouped(outcomes: Sequence[SignalOutcome], key: _Property) -> dict[str, list[SignalOutcome]]:
    groups: dict[str, list[SignalOutcome]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome), []).append(outcome)
    return groups


def _rows(groups: dict[str, list[SignalOutcome]], seed: int) -> tuple[Row, ...]:
    names = sorted(groups)
    if len(names) <= _MOST_ROWS:
        return tuple(_row(name, groups[name], seed) for name in names)
    by_count = sorted(names, key=lambda name: (-len(groups[name]), name))
    kept, others = by_count[: _MOST_ROWS - 1], by_count[_MOST_ROWS - 1 :]
    rest = [outcome for name in others for outcome in groups[name]]
    return (*(_row(name, groups[name], seed) for name in sorted(kept)), _row(f"{len(others)} others", rest, seed))


def _row(name: str, outcomes: Sequence[SignalOutcome], seed: int) -> Row:
    trades = trades_of(outcomes)
    completed = trades.net[trades.completed]
    return Row(
        name=name,
        signals=len(outcomes),
        opened=len(trades),
        completed=len(completed),
        hit_rate=wilson(int(np.count_nonzero(completed > 0)), len(completed)),
        mean_return=bootstrap_mean(trades.net, block=block_length(trades.entry_ms, trades.exit_ms), seed=seed),
    )
