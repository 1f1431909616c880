"""What no skill at all would have made: buying and holding, and random traders with the strategy's own habits.

A random trader opens as many positions as the strategy, in the same symbols, for as many bars and at the same cost, but at random
moments. Positions that the strategy opened together stay together, since together they win or lose.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.scoring.report.equity import curve, hold
from services.scoring.report.model import Hold, Random, RandomTraders
from services.scoring.report.prices import Closes, Prices
from services.scoring.report.statistics import Floats, bootstrap_mean
from services.scoring.report.trades import Trades

TRADERS: Final = 2_000
LEAST_MOMENTS: Final = 20
"""Moments to choose from below which a random trader does as the strategy did, and says nothing."""


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
    """Return how the strategy does among random traders; None where closes leave none of its positions a choice of moments.

    Of two kinds: with the strategy's own directions, and with a coin's (one toss a moment). `cost` is a fraction, both sides
    together; `block` is the bootstrap's for the strategy's own figure.
    """
    generator = np.random.default_rng(seed)
    own, coin = np.zeros(traders), np.zeros(traders)
    placed: list[int] = []
    for positions in _moments(trades):
        choices = _choices(positions, trades, prices, start_ms, end_ms)
        if not choices:
            continue
        where = generator.random(traders)
        made = sum((_returns(where, *choice) for choice in choices.values()), np.zeros(traders))
        own += made
        coin += made * generator.choice([-1.0, 1.0], traders)
        placed += choices
    if not placed:
        return None
    placed.sort()
    net = trades.net[placed]
    kinds = (
        _kind(
            "random moments",
            "The strategy's own positions (symbols, directions, holding times, costs), moved to random moments of the period.",
            own / len(placed) - cost,
            float(net.mean()),
        ),
        _kind(
            "random moments and directions",
            "The same, and a coin says whether they are bought or sold.",
            coin / len(placed) - cost,
            float(net.mean()),
        ),
    )
    edge = bootstrap_mean(net - kinds[0].mean, block=block, seed=seed)
    assert edge is not None  # noqa: S101 - at least one position is placed
    return Random(len(placed), float(net.mean()), edge, kinds)


def _moments(trades: Trades) -> list[list[int]]:
    """Return the positions that were opened together: at one time, on bars of one interval."""
    together: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, outcome in enumerate(trades.outcomes):
        together[int(trades.entry_ms[index]), outcome.interval].append(index)
    return list(together.values())


_Choice = tuple[Floats, int, float, int]
"""A symbol's closes, the bars held, the side, and how many first closes there are to choose from."""


def _choices(positions: list[int], trades: Trades, prices: Prices, start_ms: int, end_ms: int) -> dict[int, _Choice]:
    """Return what random traders can choose from, for those positions that they can be given."""
    held = {index: max(1, int(trades.bars_held[index])) for index in positions}
    longest = max(held.values())
    choices: dict[int, _Choice] = {}
    for index, bars in held.items():
        outcome = trades.outcomes[index]
        closes = prices.of(outcome.symbol, outcome.interval)
        if closes is None:
            continue
        price = closes.between(start_ms, end_ms).price
        # The longest of them counts for all: with equal numbers of closes, one draw then is one moment.
        if len(price) - longest >= LEAST_MOMENTS:
            choices[index] = (price, bars, float(trades.side[index]), len(price) - longest)
    return choices


def _returns(where: Floats, price: Floats, bars: int, side: float, firsts: int) -> Floats:
    first: NDArray[np.intp] = (where * firsts).astype(np.intp)
    returns: Floats = side * (price[first + bars] / price[first] - 1)
    return returns


def _kind(name: str, what: str, means: Floats, strategy: float) -> RandomTraders:
    worse = float((means < strategy).mean() + (means == strategy).mean() / 2)
    return RandomTraders(name, what, tuple(np.sort(means).tolist()), float(means.mean()), worse)
