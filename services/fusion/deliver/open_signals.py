"""The signals that somebody may act on: those acknowledged and still valid, and those with the producer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias
from uuid import UUID

from schemas import Action, CancelReason, Signal
from services.fusion.deliver.cancels import Cancels

_OPENABLE: Final = frozenset({Action.BUY, Action.SELL, Action.EXIT})

Withdrawal: TypeAlias = tuple[CancelReason, str]
"""Why a signal is cancelled, and the detail that its cancel carries."""


class OpenSignals:
    """Knows the open signals of each symbol, and cancels them."""

    def __init__(self, cancels: Cancels, now_ms: Callable[[], int]) -> None:
        """`now_ms` is the time on the broker's clock, which validity counts in."""
        self._cancels = cancels
        self._now_ms = now_ms
        self._open: dict[str, list[Signal]] = {}
        self._in_flight: dict[UUID, Signal] = {}
        """With the producer, and not acknowledged yet."""
        self._withdrawn: dict[UUID, Withdrawal] = {}
        """Signals in flight that are to be cancelled once they are acknowledged, so that the cancel comes after them."""

    def cancel(self, symbol: str | None, reason: CancelReason, detail: str) -> int:
        """Cancel every unexpired signal of `symbol` (of all symbols when None), those in flight included; return how many."""
        names = [symbol] if symbol is not None else list(self._open)
        signals = [signal for name in names for signal in self._unexpired(name)]
        for name in names:
            self._open.pop(name, None)
        for signal in signals:
            self._cancels.send(signal, reason, detail)
        in_flight = [one for one in self._in_flight.values() if symbol in {None, one.symbol} and one.action in _OPENABLE]
        self._withdrawn.update((one.signal_id, (reason, detail)) for one in in_flight)
        return len(signals) + len(in_flight)

    def start_flight(self, signal: Signal) -> None:
        """Note that a signal goes to the producer."""
        self._in_flight[signal.signal_id] = signal

    def end_flight(self, signal: Signal) -> Withdrawal | None:
        """Note that a signal is acknowledged or given up; return why it was withdrawn meanwhile, if it was."""
        self._in_flight.pop(signal.signal_id, None)
        return self._withdrawn.pop(signal.signal_id, None)

    def add(self, signal: Signal) -> None:
        """Note a signal that was acknowledged in time, and cancel the one of its lane that it supersedes."""
        if signal.action not in _OPENABLE:
            return
        kept: list[Signal] = []
        replaced: list[Signal] = []
        for earlier in self._unexpired(signal.symbol):
            same_lane = (earlier.interval, earlier.mode) == (signal.interval, signal.mode)
            (replaced if same_lane and earlier.signal_id != signal.signal_id else kept).append(earlier)
        self._open[signal.symbol] = [*kept, signal]
        for earlier in replaced:
            self._cancels.send(earlier, CancelReason.SUPERSEDED, f"by {signal.signal_id}")

    def restore(self, signal: Signal) -> None:
        """Note a signal that an earlier life of this worker published."""
        if signal.action in _OPENABLE:
            self._open.setdefault(signal.symbol, []).append(signal)

    def forget(self, symbol: str) -> None:
        """Forget the open signals of `symbol`: its next owner restores them."""
        self._open.pop(symbol, None)

    def _unexpired(self, symbol: str) -> list[Signal]:
        now_ms = self._now_ms()
        return [signal for signal in self._open.get(symbol, ()) if signal.valid_until_ms > now_ms]
