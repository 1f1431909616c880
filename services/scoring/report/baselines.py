"""What no skill at all would have made: buying and holding, and random traders with the strategy's own habits.

A random trader places the strategy's own orders (entry, stop, target, horizon, costs) in the same symbols, at other times, and they are
filled by the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from schemas import SignalOutcome
from services.scoring.report.equity import curve, hold
from services.scoring.report.model import Hold, Random, RandomTraders
from services.scoring.report.prices import Closes, Prices
from services.scoring.report.random_orders import Orders, Rings, at_every_stretch, orders_of, play
from services.scoring.report.statistics import Floats, bootstrap_mean
from services.scoring.report.trades import Trades

TRADERS: Final = 1_000


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
    outcomes: Sequence[SignalOutcome],
    trades: Trades,
    prices: Prices,
    start_ms: int,
    end_ms: int,
    *,
    block: int,
    seed: int,
    traders: int = TRADERS,
    first_kind_alone: bool = False,
) -> Random | None:
    """Return how the strategy does among random traders; None where its orders are not known or have too few bars.

    Traders of the first kind place the strategy's own orders, all moved along by one stretch of time: what overlaps or follows each
    other in the strategy does so in them, and their figures spread as much. Every such stretch is tried, up to `traders` of them.
    Those of the second kind place them at moments of their own and toss a coin for the direction. Orders that the strategy placed
    and that were not filled are among them: elsewhere they might have been.

    `block` is the bootstrap's, for the interval of the strategy's own figure. With `first_kind_alone` the second kind, which takes most
    of the time, is left out: where the first one says nothing, both say nothing.
    """
    found = orders_of(outcomes, prices, start_ms, end_ms)
    if found is None:
        return None
    orders, rings = found
    known = {outcome.signal_id for outcome in orders.outcomes}
    net = trades.net[np.array([outcome.signal_id in known for outcome in trades.outcomes], dtype=bool)]
    generator = np.random.default_rng(seed)
    moved = _moved(orders, rings, generator, traders)
    if not (len(net) and len(moved)):
        return None
    strategy = float(net.mean())
    kinds = [
        _kind(
            "same orders, another time",
            "the strategy's own orders, with their sequence, symbols, directions, levels, horizons and costs, all moved along by a "
            "stretch of the period",
            moved,
            strategy,
        ),
    ]
    if not first_kind_alone:
        tossed = _tossed(orders, rings, generator, traders)
        if not len(tossed):
            return None
        kinds.append(
            _kind(
                "random moments, a coin's directions",
                "the same orders in the same symbols, each placed at a random moment of the period and bought or sold as a coin falls "
                "(those that the strategy placed together stay together)",
                tossed,
                strategy,
            )
        )
    edge = bootstrap_mean(net - kinds[0].mean, block=block, seed=seed)
    assert edge is not None  # noqa: S101 - there is a position
    return Random(len(net), strategy, edge, tuple(kinds))


def _moved(orders: Orders, rings: Rings, generator: np.random.Generator, traders: int) -> Floats:
    """Return each trader's mean net return, one a stretch of time by which all orders are moved."""
    stretches = np.arange(1, int(orders.moves.max()))  # 0 would be the strategy itself
    if len(stretches) > traders:
        stretches = generator.choice(stretches, traders, replace=False)
    stands = at_every_stretch(orders, stretches)
    return _means(play(orders, rings, stands, np.broadcast_to(orders.side[:, None], stands.shape)))


def _tossed(orders: Orders, rings: Rings, generator: np.random.Generator, traders: int) -> Floats:
    """Return each trader's mean net return with moments and directions of its own."""
    moments = int(orders.moment.max()) + 1
    where, coin = generator.random((moments, traders)), generator.choice([-1.0, 1.0], (moments, traders))
    stands = (where[orders.moment] * orders.moves[:, None]).astype(np.intp)
    return _means(play(orders, rings, stands, coin[orders.moment] * orders.side[:, None]))


def _means(net: Floats) -> Floats:
    """Return the mean over the opened positions of each trader, of (orders, traders); traders who opened none are left out."""
    opened = np.count_nonzero(~np.isnan(net), axis=0)
    means: Floats = np.nansum(net, axis=0)[opened > 0] / opened[opened > 0]
    return means


def _kind(name: str, what: str, means: Floats, strategy: float) -> RandomTraders:
    better = float((means < strategy).mean() + (means == strategy).mean() / 2)
    return RandomTraders(name, what, tuple(np.sort(means).tolist()), float(means.mean()), better)
