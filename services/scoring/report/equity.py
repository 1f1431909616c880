"""Equity: sums over positions, and a share of the capital over time with open positions marked at each close.

Capital is cut into as many equal slots as positions were ever open at once. A position takes one slot; gains are not reinvested,
idle slots earn nothing, and so nothing is ever borrowed.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.scoring.report.model import Curve
from services.scoring.report.prices import Closes, Prices
from services.scoring.report.statistics import Floats, Times, peak_open
from services.scoring.report.trades import Trades

Indices = NDArray[np.intp]

_AT_ONCE: Final = 1_000
"""Positions marked together: bounds memory where each is held for very many bars."""


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
    np.add.at(gained, np.searchsorted(grid, trades.exit_ms), trades.net)
    symbols = np.array([outcome.symbol for outcome in trades.outcomes], dtype=np.str_)
    for symbol, closes in finest.items():
        own = np.flatnonzero(symbols == symbol)
        for first in range(0, len(own), _AT_ONCE):
            _mark(gained, grid, trades, own[first : first + _AT_ONCE], closes=closes, prices=prices, cost=cost)
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


def _mark(gained: Floats, grid: Times, trades: Trades, own: Indices, *, closes: Closes, prices: Prices, cost: float) -> None:
    """Add to `gained` what the positions `own`, all of one symbol, won from close to close; what they end at is there already."""
    first = np.searchsorted(closes.at_ms, trades.entry_ms[own], side="right")
    held = np.searchsorted(closes.at_ms, trades.exit_ms[own], side="left") - first
    own, first, held = own[held > 0], first[held > 0], held[held > 0]
    if len(own) == 0:
        return
    entry = prices.adjusted(trades.outcomes[own[0]].symbol, trades.entry[own], closes.price[first], trades.entry_ms[own])
    ends = np.cumsum(held)
    begins = ends - held
    at = np.arange(ends[-1]) + np.repeat(first - begins, held)  # each position's closes, one position after the other
    marks = np.repeat(trades.side[own], held) * (closes.price[at] / np.repeat(entry, held) - 1) - cost
    moves = np.diff(marks, prepend=0.0)
    moves[begins] = marks[begins]
    np.add.at(gained, np.searchsorted(grid, closes.at_ms)[at], moves)
    # At the exit the last mark gives way to what was made.
    np.add.at(gained, np.searchsorted(grid, trades.exit_ms[own]), -marks[ends - 1])
