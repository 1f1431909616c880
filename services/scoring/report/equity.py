"""Equity: sums over positions, and a share of the capital over time with open positions marked at each close.

Capital is cut into as many equal slots as positions were ever open at once. A position takes one slot; gains are not reinvested,
idle slots earn nothing, and so nothing is ever borrowed.
"""

from __future__ import annotations

import numpy as np

from services.scoring.report.model import Curve
from services.scoring.report.prices import Closes, Prices
from services.scoring.report.statistics import Floats, Times, peak_open
from services.scoring.report.trades import Trades


def per_position(trades: Trades) -> Curve:
    """Return the sum of net returns after each position, in order of exit; a position counts as the whole capital."""
    order = np.lexsort((trades.entry_ms, trades.exit_ms))
    values = np.concatenate([[0.0], np.cumsum(trades.net[order])])
    return curve(np.arange(len(trades) + 1, dtype=np.int64), values)


def over_time(trades: Trades, prices: Prices, cost: float, start_ms: int, end_ms: int) -> Curve:
    """Return the share of the capital won at `start_ms`, at every close and at every exit up to `end_ms`.

    An open position is worth what closing it at the last close would bring, with `cost` (a fraction, both sides together)
    taken off; one whose symbol has no closes counts from its exit on.
    """
    finest = {symbol: closes for symbol in prices.symbols() if (closes := prices.finest(symbol)) is not None}
    within = [closes.between(start_ms, end_ms).at_ms for closes in finest.values()]
    grid = np.unique(np.concatenate([*within, trades.exit_ms, np.array([start_ms, end_ms], dtype=np.int64)]))
    gained = np.zeros(len(grid))
    slots = max(1, peak_open(trades.entry_ms, trades.exit_ms))
    exit_at = np.searchsorted(grid, trades.exit_ms)
    for index, outcome in enumerate(trades.outcomes):
        last = 0.0
        if (closes := finest.get(outcome.symbol)) is not None:
            at_ms, marks = _marks(trades, index, closes, prices, cost)
            if len(marks):
                gained[np.searchsorted(grid, at_ms)] += np.diff(marks, prepend=0.0)
                last = float(marks[-1])
        gained[exit_at[index]] += trades.net[index] - last
    return curve(grid, np.cumsum(gained) / slots)


def hold(closes: Closes, cost: float) -> Floats:
    """Return what buying at the first close has made at each of them, as a fraction, `cost` taken off from the start."""
    returns: Floats = closes.price / closes.price[0] - 1 - cost
    return returns


def curve(at: Times, values: Floats) -> Curve:
    """Return the curve with its drawdown, each value a share of a starting capital of 1."""
    worth = 1 + values
    peak = np.maximum.accumulate(np.maximum(worth, 1.0))
    return Curve(tuple(at.tolist()), tuple(values.tolist()), tuple((worth / peak - 1).tolist()))


def exposure(trades: Trades, start_ms: int, end_ms: int) -> float | None:
    """Return the share of the capital's time that was in positions; None when no time passed."""
    if end_ms <= start_ms or len(trades) == 0:
        return None
    held = float((trades.exit_ms - trades.entry_ms).sum())
    return min(1.0, held / (peak_open(trades.entry_ms, trades.exit_ms) * (end_ms - start_ms)))


def _marks(trades: Trades, index: int, closes: Closes, prices: Prices, cost: float) -> tuple[Times, Floats]:
    """Return the closes' times while the position was open, and what it was worth at each."""
    first = int(np.searchsorted(closes.at_ms, trades.entry_ms[index], side="right"))
    last = int(np.searchsorted(closes.at_ms, trades.exit_ms[index], side="left"))
    entry = prices.adjusted(trades.outcomes[index].symbol, float(trades.entry[index]), closes.price[first : first + 1])
    marks: Floats = trades.side[index] * (closes.price[first:last] / entry - 1) - cost
    return closes.at_ms[first:last], marks
