"""One signal's paper position, played bar by bar from its opening to its end. Pure, and all of its state is plain data.

Prices are compared as the position sees them: multiplied by its side, so that more is always better to hold, whichever way it goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final, NamedTuple

from schemas import Action, ExitReason, Mode, Order, Signal, SignalOutcome, Source, Vision
from schemas.signal import LabelAction
from services.scoring.fill_rules import FillRules
from services.scoring.signal_times import Span

_MORE_DECIMALS: Final = 4
"""Slippage and gaps are paid off the tick: fills have this many more decimals than the signal's prices."""

Key = tuple[int, int, int, int, str]
"""Orders the signals of a lane: the market time that each stands at, both offsets, when it was decided, and its id."""


class Bar(NamedTuple):
    """A closed bar, prices on the scale in force at its open."""

    ts_open_ms: int
    ts_close_ms: int
    open: float
    high: float
    low: float
    close: float
    revision: int


class PositionEnd(NamedTuple):
    """How a position ended; prices as decimal strings, None when none was opened."""

    reason: ExitReason
    ts_exit_ms: int
    exit: str | None = None
    return_net: float | None = None
    max_favourable: float | None = None
    max_adverse: float | None = None
    invalid: bool = False
    """True when it was not opened because the market lay beyond its stop."""
    unscored: bool = False
    """True when it was held over a price jump that no split explains, so that nobody knows what it made."""


@dataclass(slots=True)
class PaperPosition:
    """One signal to buy or sell, and what became of it so far. Bars are handed in on the scale of its own prices."""

    signal_id: str
    run_mode: str
    symbol: str
    interval: str
    mode: Mode
    action: str
    source: Source
    vision: Vision
    conviction: float
    key: Key
    from_ms: int
    until_ms: int
    clock_ms: int
    horizon_end_ms: int
    limit: bool
    entry: float
    stop: float
    target: float
    entry_fill: float
    """What the market must trade at to fill a limit that rests at `entry`."""
    target_fill: float
    """Likewise for the target."""
    decimals: int
    order: dict[str, Any] | None
    """The fields of the outcome's `Order`; None in a state that was written before there was one."""
    probabilities: dict[LabelAction, float] | None = None
    """The signal's; None where it has none."""
    cancelled_ms: int | None = None
    """Event time from which it is withdrawn."""
    replaced_ms: int | None = None
    """From when a newer signal of the lane stands: until it is open, any ends it."""
    turned_ms: int | None = None
    """From when a newer signal of the lane wants something else: that ends it open as well."""
    opened_ms: int | None = None
    price: str = ""
    """What it was opened at."""
    best: float = 0.0
    worst: float = 0.0
    bars_held: int = 0
    jumped_ms: int | None = None
    """When it was suspended: at the open of the bar in which the price jumped without a split that explains it."""

    @classmethod
    def of(cls, signal: Signal, span: Span, key: Key, rules: FillRules) -> PaperPosition:
        """Return the paper position of a signal to buy or sell for which `missing_fields` names nothing."""
        assert signal.conviction is not None and signal.horizon_end_ms is not None  # noqa: S101, PT018 - see `missing_fields`
        assert signal.entry is not None and signal.stop is not None and signal.target is not None  # noqa: S101, PT018
        assert signal.entry_type is not None and signal.horizon_bars is not None  # noqa: S101, PT018
        side = 1 if signal.action is Action.BUY else -1
        until_ms = min(span.until_ms, signal.horizon_end_ms)
        tick = rules.tick(signal.entry)
        return cls(
            signal_id=str(signal.signal_id),
            run_mode=signal.run_mode.value,
            symbol=signal.symbol,
            interval=signal.interval,
            mode=signal.mode,
            action=signal.action.value,
            source=signal.source,
            vision=signal.vision,
            conviction=signal.conviction,
            key=key,
            from_ms=span.from_ms,
            until_ms=until_ms,
            clock_ms=span.clock_ms,
            horizon_end_ms=signal.horizon_end_ms,
            limit=signal.entry_type == "limit",
            entry=float(signal.entry),
            stop=float(signal.stop),
            target=float(signal.target),
            # In decimals: 99.80 less 0.01 in floats is not the 99.79 that a bar says.
            entry_fill=float(Decimal(signal.entry) - side * tick),
            target_fill=float(Decimal(signal.target) + side * rules.tick(signal.target)),
            order={
                "entry_type": signal.entry_type,
                "ref_price": signal.ref_price,
                "entry": signal.entry,
                "stop": signal.stop,
                "target": signal.target,
                "horizon_bars": signal.horizon_bars,
                "ts_stands_ms": span.stands_ms,
                "ts_from_ms": span.from_ms,
                "ts_until_ms": until_ms,
                "ts_horizon_ms": signal.horizon_end_ms,
                "tick": f"{tick:f}" if tick else None,  # str() of a small Decimal has an exponent
                "cost_bps": rules.cost_bps,
                "slippage_bps": rules.slippage_bps,
                "fee": rules.fee,
            },
            probabilities=None if signal.probabilities is None else dict(signal.probabilities),
            decimals=_decimals(signal.entry, signal.stop, signal.target),
        )

    @classmethod
    def of_order(cls, outcome: SignalOutcome, order: Order, horizon_end_ms: int) -> PaperPosition:
        """Return the paper position of an outcome's order, played from its beginning."""
        side = 1 if outcome.action is Action.BUY else -1
        tick = Decimal(order.tick or 0)
        return cls(
            signal_id=str(outcome.signal_id),
            run_mode=outcome.run_mode.value,
            symbol=outcome.symbol,
            interval=outcome.interval,
            mode=outcome.mode,
            action=outcome.action.value,
            source=outcome.source,
            vision=outcome.vision,
            conviction=outcome.conviction,
            key=(order.ts_stands_ms, 0, 0, order.ts_from_ms, str(outcome.signal_id)),
            from_ms=order.ts_from_ms,
            until_ms=order.ts_until_ms,
            clock_ms=0,
            horizon_end_ms=horizon_end_ms,
            limit=order.entry_type == "limit",
            entry=float(order.entry),
            stop=float(order.stop),
            target=float(order.target),
            entry_fill=float(Decimal(order.entry) - side * tick),
            target_fill=float(Decimal(order.target) + side * tick),
            order=None,
            decimals=_decimals(order.entry, order.stop, order.target),
        )

    @property
    def side(self) -> int:
        """Return 1 for long, -1 for short."""
        return 1 if self.action == Action.BUY.value else -1

    def reset(self) -> None:
        """Forget what was played."""
        self.opened_ms, self.price, self.best, self.worst, self.bars_held, self.jumped_ms = None, "", 0.0, 0.0, 0, None

    def play(self, bar: Bar, rules: FillRules, *, jumped: bool) -> PositionEnd | None:
        """Take the next bar; return how the position ended in it, None while it has not.

        A position that is open in a bar to which the price `jumped` is suspended until its horizon ends: a split or a correction that
        comes by then has it played anew.
        """
        if self.jumped_ms is None:
            ended = self._play(bar, rules)
            if not jumped or self.opened_ms is None:
                return ended
            self.jumped_ms = max(bar.ts_open_ms, self.opened_ms)  # a limit inside the bar counts as filled at its close
        if bar.ts_close_ms < self.horizon_end_ms:
            return None
        return PositionEnd(ExitReason.CANCELLED, self.jumped_ms, unscored=True)

    def _play(self, bar: Bar, rules: FillRules) -> PositionEnd | None:
        if self.opened_ms is not None:
            return self._hold(bar, rules, at_open=True)
        if bar.ts_open_ms < self.from_ms:
            return None
        withdrawn = self._withdrawn(self.replaced_ms, bar.ts_open_ms)
        if withdrawn is not None:
            return PositionEnd(*withdrawn)
        if bar.ts_open_ms > self.until_ms or bar.ts_close_ms > self.horizon_end_ms:
            return PositionEnd(ExitReason.UNFILLED, self.until_ms)
        return self._enter(bar, rules)

    def _withdrawn(self, replaced_ms: int | None, at_ms: int) -> tuple[ExitReason, int] | None:
        """Return why and since when it no longer holds at `at_ms`."""
        cancelled, replaced = self.cancelled_ms, replaced_ms
        if cancelled is not None and cancelled <= at_ms and (replaced is None or cancelled <= replaced):
            return ExitReason.CANCELLED, cancelled
        if replaced is not None and replaced <= at_ms:
            return ExitReason.SUPERSEDED, replaced
        return None

    def _enter(self, bar: Bar, rules: FillRules) -> PositionEnd | None:
        side, limit = self.side, self.side * self.entry
        opening = side * bar.open
        if opening <= side * self.stop:
            return PositionEnd(ExitReason.UNFILLED, bar.ts_open_ms, invalid=True)
        if self.limit:
            fills = side * self.entry_fill
            if opening <= fills:
                return self._open(bar, opening, rules, at_open=True)
            if min(side * bar.low, side * bar.high) <= fills:
                return self._open(bar, limit, rules, at_open=False)
        elif (paid := opening + rules.slippage(opening)) <= limit:
            return self._open(bar, paid, rules, at_open=True)
        # Nothing opens before this bar's close, so what comes after cannot be in time either.
        if bar.ts_close_ms > self.until_ms or bar.ts_close_ms >= self.horizon_end_ms:
            return PositionEnd(ExitReason.UNFILLED, self.until_ms)
        return None

    def _open(self, bar: Bar, paid: float, rules: FillRules, *, at_open: bool) -> PositionEnd | None:
        self.opened_ms = bar.ts_open_ms if at_open else bar.ts_close_ms
        self.price = self._decimal(abs(paid))
        self.best = self.worst = self.side * float(self.price)
        return self._hold(bar, rules, at_open=at_open)

    def _hold(self, bar: Bar, rules: FillRules, *, at_open: bool) -> PositionEnd | None:
        """Play a bar of an open position; without `at_open` it was opened inside the bar, when a limit was reached."""
        side = self.side
        stop, target, close = side * self.stop, side * self.target, side * bar.close
        target_fill = side * self.target_fill
        low, high = min(side * bar.low, side * bar.high), max(side * bar.low, side * bar.high)
        if at_open:
            opening = side * bar.open
            ended = self._at_open(bar, opening, stop, target_fill)
            if ended is not None:
                reason, paid = ended
                self._saw(opening)
                slipped = paid if reason is ExitReason.TARGET else paid - rules.slippage(paid)
                return self._end(reason, bar.ts_open_ms, slipped, rules)
        self.bars_held += 1
        if low <= stop:
            self._saw(stop)
            return self._end(ExitReason.STOP, bar.ts_close_ms, stop - rules.slippage(stop), rules)
        # The part of the bar before a limit was reached does not count, and its high may lie there; its close does not.
        if (high if at_open else close) >= target_fill:
            self._saw(target)
            return self._end(ExitReason.TARGET, bar.ts_close_ms, target, rules)
        self._saw(low)
        self._saw(high if at_open else close)
        if bar.ts_close_ms >= self.horizon_end_ms:
            return self._end(ExitReason.HORIZON, bar.ts_close_ms, close - rules.slippage(close), rules)
        return None

    def _at_open(self, bar: Bar, opening: float, stop: float, target_fill: float) -> tuple[ExitReason, float] | None:
        """Return why and at which price the position ends at the bar's open."""
        withdrawn = self._withdrawn(self.turned_ms, bar.ts_open_ms)
        if withdrawn is not None:
            return withdrawn[0], opening
        if bar.ts_close_ms > self.horizon_end_ms:
            return ExitReason.HORIZON, opening  # the bar that ends with the horizon is missing
        if opening <= stop:
            return ExitReason.STOP, opening
        return (ExitReason.TARGET, opening) if opening >= target_fill else None

    def _saw(self, price: float) -> None:
        self.best = max(self.best, price)
        self.worst = min(self.worst, price)

    def _end(self, reason: ExitReason, at_ms: int, paid: float, rules: FillRules) -> PositionEnd:
        leaves = self._decimal(abs(paid))
        bought, sold = float(self.price), float(leaves)
        moved = self.side * (sold - bought)
        return PositionEnd(
            reason,
            at_ms,
            leaves,
            _fraction(moved - rules.costs(bought, sold), bought),
            _fraction(self.best - self.side * bought, bought),
            _fraction(self.worst - self.side * bought, bought),
        )

    def _decimal(self, price: float) -> str:
        """Return `price` with at least the decimals of the signal's prices."""
        fine = Decimal(repr(price)).quantize(Decimal(1).scaleb(-min(12, self.decimals + _MORE_DECIMALS)), ROUND_HALF_EVEN)
        whole, _, decimals = f"{fine:f}".partition(".")
        kept = decimals.rstrip("0").ljust(self.decimals, "0")
        return f"{whole}.{kept}" if kept else whole


def missing_fields(signal: Signal) -> list[str]:
    """Return the fields that a signal to buy or sell needs to be judged and does not have."""
    needed = ("conviction", "horizon_bars", "horizon_end_ms", "entry_type", "entry", "stop", "target")
    return [name for name in needed if getattr(signal, name) is None]


def _decimals(*prices: str) -> int:
    return max(len(price.partition(".")[2]) for price in prices)


def _fraction(amount: float, of: float) -> float:
    """Return a share to a hundred-millionth: the digits beyond are noise of the arithmetic."""
    return round(amount / of, 8) + 0.0
