"""Places orders at other moments and plays them by the judge's rules (`paper_position.py`), thousands at once.

Levels are kept in ATR from the last close, so that an order means the same in a calm and in a wild market. Bars are taken as a ring,
so that what runs past the period's end goes on at its start. A test holds that an order placed at its own moment ends as it did.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from schemas import Action, ExitReason, SignalOutcome, interval_ms
from services.scoring.report.prices import Bars, Prices
from services.scoring.report.statistics import Floats

LEAST_BARS: Final = 20
"""Moves from close to close below which a random trader has no choice to speak of."""
_ATR_BARS: Final = 14
_BPS: Final = 1e-4
_AT_ONCE: Final = 32_000
"""Orders played together. Their arrays stay in the processor's cache: 300,000 at once take twice as long."""
_SMALLEST_ATR: Final = 1e-6
_EQUAL: Final = 1e-9
"""Relative prices that are this near are one price: 99.79 over 100 is not 99.80 less 0.01 over 100 to the last bit."""

Indices = NDArray[np.intp]
Bools = NDArray[np.bool_]
S = TypeVar("S", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Orders:
    """The orders of a strategy, one row each. Prices are in units of the close at which each was placed."""

    outcomes: tuple[SignalOutcome, ...]
    ring: Indices
    """Where the order's bars begin among all bars."""
    moves: Indices
    """How many bars its ring has."""
    stands: Indices
    """The bar of the ring at whose close it was placed."""
    moment: Indices
    """Orders that were placed at one time, on bars of one interval, share one."""
    side: Floats
    limit: Bools
    entry: Floats
    """In ATR from the close, positive towards the target; so are `stop` and `target`."""
    stop: Floats
    target: Floats
    tick: Floats
    fee: Floats
    cost: Floats
    slippage: Floats
    first: Indices
    """The first bar after the close in which it could be filled, counted from 1; so are those below."""
    last: Indices
    """The last such bar."""
    horizon: Indices
    cut: Indices
    """The bar at whose open a cancel or a newer signal ended it; 0 when none did."""

    def __len__(self) -> int:
        return len(self.outcomes)


@dataclass(frozen=True, slots=True)
class Rings:
    """All bars, one ring after another, each bar relative to the close before it."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    atr: Floats
    """As a fraction of the close."""
    price: Floats


def orders_of(outcomes: Iterable[SignalOutcome], prices: Prices, start_ms: int, end_ms: int) -> tuple[Orders, Rings] | None:
    """Return the orders whose symbol and interval have enough bars, and those bars; None when there are none.

    Outcomes that do not say what was ordered are left out, and those held over a suspected split.
    """
    by_series: dict[tuple[str, str], list[SignalOutcome]] = defaultdict(list)
    for outcome in sorted(outcomes, key=lambda one: (one.ts_exit_ms, one.signal_id)):
        if outcome.order is not None and outcome.unscored_reason is None:
            by_series[outcome.symbol, outcome.interval].append(outcome)
    rows: list[tuple[float, ...]] = []
    placed: list[SignalOutcome] = []
    parts: list[Rings] = []
    moments: dict[tuple[int, str], int] = {}
    begins = 0
    for (symbol, interval), of_series in sorted(by_series.items()):
        bars = prices.bars(symbol, interval)
        if bars is None:
            continue
        first = min(outcome.order.ts_stands_ms for outcome in of_series if outcome.order is not None)
        within = slice(*np.searchsorted(bars.closed_ms, [min(first, start_ms), end_ms + 1]))
        if within.stop - within.start <= LEAST_BARS:
            continue
        ring = _ring(bars, within)
        parts.append(ring)
        opened_ms, closed_ms = bars.opened_ms[within], bars.closed_ms[within]
        for outcome in of_series:
            row = _row(outcome, ring, opened_ms, closed_ms)
            if row is not None:
                assert outcome.order is not None  # noqa: S101 - see above
                moment = moments.setdefault((outcome.order.ts_stands_ms, interval), len(moments))
                rows.append((begins, len(closed_ms), moment, *row))
                placed.append(outcome)
        begins += len(closed_ms)
    if not placed:
        return None
    columns = np.array(rows, dtype=np.float64).T
    ring_at, moves, moment_of, stands, first_at, last, horizon, cut = (column.astype(np.intp) for column in columns[:8])
    side, limit, entry, stop, target, tick, fee, cost, slippage = columns[8:]
    orders = Orders(
        outcomes=tuple(placed),
        ring=ring_at,
        moves=moves,
        moment=moment_of,
        stands=stands,
        first=first_at,
        last=last,
        horizon=horizon,
        cut=cut,
        side=side,
        limit=limit > 0,
        entry=entry,
        stop=stop,
        target=target,
        tick=tick,
        fee=fee,
        cost=cost,
        slippage=slippage,
    )
    return orders, Rings(*(np.concatenate([getattr(part, name) for part in parts]) for name in Rings.__slots__))


def play(orders: Orders, rings: Rings, stands: Indices, sides: Floats) -> Floats:
    """Return (orders, traders) net returns of each order placed at the close of the bars `stands`, on `sides`; NaN where not opened.

    `stands` and `sides` are (orders, traders); a bar's number counts round its ring.
    """
    net = np.empty(stands.shape)
    by_horizon = np.argsort(orders.horizon, kind="stable")
    rows = max(1, _AT_ONCE // stands.shape[1])
    for first in range(0, len(by_horizon), rows):
        chosen = by_horizon[first : first + rows]
        net[chosen] = _played(orders, rings, chosen, stands[chosen], sides[chosen])
    return net


def _played(orders: Orders, rings: Rings, chosen: Indices, stands: Indices, sides: Floats) -> Floats:
    def column(values: NDArray[S]) -> NDArray[S]:
        return values[chosen][:, None]

    base, moves = column(orders.ring), column(orders.moves)
    at = base + stands % moves
    atr, scale = rings.atr[at], rings.price[base + column(orders.stands)] / rings.price[at]
    entry, stop, target = (sides + column(of) * atr for of in (orders.entry, orders.stop, orders.target))
    tick, fee = column(orders.tick) * scale - _EQUAL, column(orders.fee) * scale
    stop_at, entry_at = stop + _EQUAL, entry + _EQUAL
    slippage, cost = column(orders.slippage), column(orders.cost)
    limit, first, last = column(orders.limit), column(orders.first), column(orders.last)
    horizon, cut = column(orders.horizon), column(orders.cut)
    buys = sides > 0
    paid, left = np.full(stands.shape, np.nan), np.full(stands.shape, np.nan)
    is_open, done = np.zeros(stands.shape, dtype=bool), np.zeros(stands.shape, dtype=bool)
    level = np.ones(stands.shape)
    for bar in range(1, int(orders.horizon[chosen].max()) + 1):
        index = base + (stands + bar) % moves
        opening = sides * level * rings.open[index]
        high, low = level * rings.high[index], level * rings.low[index]
        best, worst = np.where(buys, high, -low), np.where(buys, low, -high)
        level = level * rings.close[index]
        close = sides * level
        live = ~done & (bar <= horizon)
        cut_now = live & (bar == cut)
        _leave(left, cut_now & is_open, opening - slippage * np.abs(opening))
        done |= cut_now
        held = live & is_open & ~done
        waits = live & ~is_open & ~done & (bar >= first) & (bar <= last)
        done |= waits & (opening <= stop_at)
        waits &= opening > stop_at
        market = opening + slippage * np.abs(opening)
        at_market = waits & ~limit & (market <= entry_at)
        at_open = waits & limit & (opening <= entry - tick)
        inside = waits & limit & ~at_open & (worst <= entry - tick)
        paid = np.where(at_market, market, np.where(at_open, opening, np.where(inside, entry, paid)))
        whole = held | at_market | at_open
        is_open |= at_market | at_open | inside
        playing = whole | inside
        for ends, price in (
            (whole & (opening <= stop_at), opening - slippage * np.abs(opening)),
            (whole & (opening >= target + tick), opening),
            (worst <= stop_at, stop - slippage * np.abs(stop)),
            (np.where(whole, best, close) >= target + tick, target),
            (bar == horizon, close - slippage * np.abs(close)),
        ):
            now = playing & ~done & ends
            _leave(left, now, price)
            done |= now
        if done.all():
            break
    net: Floats = (left - paid - cost * (np.abs(left) + np.abs(paid)) - 2 * fee) / np.abs(paid)
    return net


def _leave(left: Floats, which: Bools, price: Floats) -> None:
    left[which] = price[which]


def _ring(bars: Bars, within: slice) -> Rings:
    before = np.concatenate([[bars.open[0]], bars.close[:-1]])
    ranges = np.maximum(bars.high, before) - np.minimum(bars.low, before)
    sums = np.concatenate([[0.0], np.cumsum(ranges)])
    # The first bars take the range of as many as there are: a single one may have none.
    ends = np.maximum(np.arange(1, len(ranges) + 1), min(_ATR_BARS, len(ranges)))
    reach = np.minimum(ends, _ATR_BARS)
    atr = np.maximum((sums[ends] - sums[ends - reach]) / reach / bars.close, _SMALLEST_ATR)
    before = before[within].copy()
    before[0] = bars.open[within][0]  # a ring's first bar follows its last one without a gap
    open_, high, low, close = (of[within] / before for of in (bars.open, bars.high, bars.low, bars.close))
    return Rings(open_, high, low, close, atr[within], bars.close[within])


def _row(outcome: SignalOutcome, ring: Rings, opened_ms: NDArray[np.int64], closed_ms: NDArray[np.int64]) -> tuple[float, ...] | None:
    """Return an order's row from `stands` on, without `moment`; None when it was placed before the bars begin."""
    order = outcome.order
    assert order is not None  # noqa: S101 - `orders_of` asks
    stands = int(np.searchsorted(closed_ms, order.ts_stands_ms, side="right")) - 1
    ref = float(order.ref_price)
    if stands < 0 or ref <= 0:
        return None
    side = 1.0 if outcome.action is Action.BUY else -1.0
    atr = float(ring.atr[stands])
    levels = [side * (float(price) / ref - 1) / atr for price in (order.entry, order.stop, order.target)]
    withdrawn = outcome.exit_reason in {ExitReason.CANCELLED, ExitReason.SUPERSEDED}
    ends_ms = outcome.ts_exit_ms if withdrawn else None
    until_ms = order.ts_until_ms if ends_ms is None or outcome.ts_entry_ms is not None else min(order.ts_until_ms, ends_ms - 1)
    first = int(np.searchsorted(opened_ms, order.ts_from_ms, side="left")) - stands
    last = int(np.searchsorted(opened_ms, until_ms, side="right")) - 1 - stands
    if until_ms >= closed_ms[-1]:  # bars that the period no longer holds
        last += (until_ms - int(closed_ms[-1])) // interval_ms(outcome.interval) + 1
    cut = 0 if ends_ms is None else max(1, int(np.searchsorted(opened_ms, ends_ms, side="left")) - stands)
    costs = (order.cost_bps * _BPS, order.slippage_bps * _BPS)
    of_price = (float(order.tick or 0) / ref, order.fee / ref)
    return (stands, first, last, order.horizon_bars, cut, side, order.entry_type == "limit", *levels, *of_price, *costs)


def at_every_stretch(orders: Orders, stretches: Sequence[int] | Indices) -> Indices:
    """Return (orders, stretches) the bars at which orders stand when all are moved along by the same part of their rings."""
    longest = int(orders.moves.max())
    moved: Indices = orders.stands[:, None] + np.asarray(stretches, dtype=np.intp)[None, :] * orders.moves[:, None] // longest
    return moved
