"""What no skill at all would have made: buying and holding, and random traders with the strategy's own habits.

A random trader opens as many positions as the strategy, in the same symbols, for as many bars and at the same cost, but at other
times. Closes are taken as a ring, so that a position that runs past the period's end goes on at its start.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.scoring.report.equity import curve, hold
from services.scoring.report.model import Hold, Random, RandomTraders
from services.scoring.report.prices import Closes, Prices
from services.scoring.report.statistics import Floats, bootstrap_mean
from services.scoring.report.trades import Trades

TRADERS: Final = 2_000
LEAST_BARS: Final = 20
"""Moves from close to close below which a random trader has no choice to speak of."""


def buy_and_hold(prices: Prices, cost: float, start_ms: int, end_ms: int) -> Hold | None:
    """Return what holding every symbol, each with an equal part of the capital, made; None without two closes of any.

    `cost` is a fraction, both sides together. A symbol whose closes begin later is bought then; nothing is rebalanced.
    """
    held: dict[str, Closes] = {}
    for symbol in prices.symbols():
        closes = prices.finest(symbol)
        if closes is not None and len(within := closes.between(start_ms, end_ms)) > 1:
            held[symbol] = within
    if not held:
        return None
    grid = np.unique(np.concatenate([closes.at_ms for closes in held.values()]))
    total = np.zeros(len(grid))
    by_symbol = {}
    for symbol, closes in held.items():
        made = hold(closes, cost)
        total[np.searchsorted(grid, closes.at_ms)] += np.diff(made, prepend=0.0)
        by_symbol[symbol] = float(made[-1])
    return Hold(curve(grid, np.cumsum(total) / len(held)), by_symbol)


def random_traders(
    trades: Trades, prices: Prices, cost: float, start_ms: int, end_ms: int, *, block: int, seed: int, traders: int = TRADERS
) -> Random | None:
    """Return how the strategy does among random traders; None where there are too few closes for any of its positions.

    Traders of the first kind make the strategy's own positions, all moved along by one stretch of time: what overlaps or follows
    each other in the strategy does so in them, and their figures spread as much. Every such stretch is tried, up to `traders`
    of them. Those of the second kind open at moments of their own and toss a coin for the direction.

    `cost` is a fraction, both sides together; `block` is the bootstrap's, for the interval of the strategy's own figure.
    """
    rings = _rings(trades, prices, start_ms, end_ms)
    if not rings:
        return None
    generator = np.random.default_rng(seed)
    moved = _moved(rings, generator, traders) - cost
    tossed = _tossed(rings, generator, traders) - cost
    net = trades.net[np.sort(np.concatenate([ring.index for ring in rings]))]
    strategy = float(net.mean())
    kinds = (
        _kind(
            "same trades, another time",
            "the strategy's own positions, with their order, symbols, directions, holding times and costs, all moved along by a "
            "stretch of the period",
            moved,
            strategy,
        ),
        _kind(
            "random moments, a coin's directions",
            "as many positions in the same symbols, with the same holding times and costs, each opened at a random moment of the "
            "period and bought or sold as a coin falls (those that the strategy opened together stay together)",
            tossed,
            strategy,
        ),
    )
    edge = bootstrap_mean(net - kinds[0].mean, block=block, seed=seed)
    assert edge is not None  # noqa: S101 - a ring has positions
    return Random(len(net), strategy, edge, kinds)


@dataclass(frozen=True, slots=True)
class _Ring:
    """The closes of one symbol and interval, end joined to start, and the positions that are played on them."""

    moves: int
    """Moves from close to close: the ring's length."""
    path: Floats
    """Sums of log moves, as often round as the longest position needs."""
    index: NDArray[np.intp]
    """Of the positions, among all trades."""
    first: NDArray[np.intp]
    """The close at or before each position's entry."""
    bars: NDArray[np.int64]
    side: Floats
    moment: NDArray[np.intp]
    """The positions' moments: those opened at one time, on bars of one interval, share one."""

    def gross(self, bars: int, begin: NDArray[np.intp]) -> Floats:
        """Return what buying at these closes, for so many bars, brought."""
        gross: Floats = np.expm1(self.path[begin + bars] - self.path[begin])
        return gross


def _rings(trades: Trades, prices: Prices, start_ms: int, end_ms: int) -> list[_Ring]:
    """Return the rings of those positions whose symbol and interval have enough closes."""
    positions: dict[tuple[str, str], list[int]] = defaultdict(list)
    moments: dict[tuple[int, str], int] = {}
    moment = np.zeros(len(trades), dtype=np.intp)
    for place, outcome in enumerate(trades.outcomes):
        positions[outcome.symbol, outcome.interval].append(place)
        moment[place] = moments.setdefault((int(trades.entry_ms[place]), outcome.interval), len(moments))
    rings = []
    for (symbol, interval), held in positions.items():
        closes = prices.of(symbol, interval)
        if closes is None or len(within := closes.between(start_ms, end_ms)) <= LEAST_BARS:
            continue
        index = np.array(held, dtype=np.intp)
        log_moves = np.diff(np.log(within.price))
        rounds = 2 + int(trades.bars_held[index].max()) // len(log_moves)
        rings.append(
            _Ring(
                moves=len(log_moves),
                path=np.concatenate([[0.0], np.cumsum(np.tile(log_moves, rounds))]),
                index=index,
                first=np.searchsorted(within.at_ms, trades.entry_ms[index], side="right") - 1,
                bars=trades.bars_held[index],
                side=trades.side[index],
                moment=moment[index],
            )
        )
    return rings


def _moved(rings: Sequence[_Ring], generator: np.random.Generator, traders: int) -> Floats:
    """Return each trader's mean gross return, one a stretch of time by which all positions are moved."""
    longest = max(ring.moves for ring in rings)
    stretches = np.arange(1, longest)  # 0 would be the strategy itself
    if len(stretches) > traders:
        stretches = generator.choice(stretches, traders, replace=False)
    total = np.zeros(len(stretches))
    for ring in rings:
        # The same part of each ring: with equal numbers of closes, the same time.
        total += _at_every_stretch(ring)[stretches * ring.moves // longest]
    return total / sum(len(ring.index) for ring in rings)


def _at_every_stretch(ring: _Ring) -> Floats:
    """Return (moves,) the positions' gross returns together, for every number of closes by which all can be moved."""
    total = np.zeros(ring.moves)
    begins = np.arange(ring.moves)
    for bars in np.unique(ring.bars):
        held = ring.bars == bars
        sides = np.zeros(ring.moves)
        np.add.at(sides, ring.first[held] % ring.moves, ring.side[held])
        # sum over f of sides[f] * gross[f + by], for every `by` at once: a circular correlation.
        found = np.fft.irfft(np.fft.rfft(ring.gross(int(bars), begins)) * np.conj(np.fft.rfft(sides)), ring.moves)
        total += found
    return total


def _tossed(rings: Sequence[_Ring], generator: np.random.Generator, traders: int) -> Floats:
    """Return each trader's mean gross return with moments and directions of its own."""
    by_moment: dict[int, list[tuple[_Ring, int]]] = defaultdict(list)
    for ring in rings:
        for position, moment in enumerate(ring.moment):
            by_moment[int(moment)].append((ring, position))
    total = np.zeros(traders)
    for moment in sorted(by_moment):
        where, coin = generator.random(traders), generator.choice([-1.0, 1.0], traders)
        for ring, position in by_moment[moment]:
            total += coin * ring.side[position] * ring.gross(int(ring.bars[position]), (where * ring.moves).astype(np.intp))
    return total / sum(len(ring.index) for ring in rings)


def _kind(name: str, what: str, means: Floats, strategy: float) -> RandomTraders:
    better = float((means < strategy).mean() + (means == strategy).mean() / 2)
    return RandomTraders(name, what, tuple(np.sort(means).tolist()), float(means.mean()), better)
