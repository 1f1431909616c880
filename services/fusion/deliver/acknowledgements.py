"""What follows a signal's acknowledgement: in time, the signal is open; late, or none at all, it is cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from schemas import CancelReason, Signal
from services.core import metrics
from services.core.bus import BusError, Position
from services.core.clock import Clock
from services.fusion.deliver.cancels import Cancels
from services.fusion.deliver.open_signals import OpenSignals


class SkewMeter:
    """The latest estimate of the worker's clock less the broker's, from the append times in acknowledgements.

    It is exact to within an acknowledgement's round trip: an append time inside it shows no skew.
    """

    def __init__(self) -> None:
        """Start with no skew known."""
        self.skew_ms = 0

    def seen(self, sent_ms: int, appended_ms: int, acknowledged_ms: int) -> None:
        """Take in one acknowledgement: both ends on the worker's clock, the append time on the broker's."""
        if appended_ms < sent_ms:
            self.skew_ms = sent_ms - appended_ms
        elif appended_ms > acknowledged_ms:
            self.skew_ms = acknowledged_ms - appended_ms
        else:
            self.skew_ms = 0
        metrics.CLOCK_SKEW_SECONDS.set(self.skew_ms / 1000)

    def on_broker(self, worker_ms: int) -> int:
        """Return a time on the worker's clock as the broker's clock shows it."""
        return worker_ms - self.skew_ms


@dataclass(frozen=True, slots=True)
class SentSignal:
    """A signal that was handed to the producer."""

    signal: Signal
    acknowledgement: Awaitable[Position]
    at_ms: int
    """When, on the worker's clock: it was not appended before."""


class Acknowledgements:
    """Waits for the acknowledgements of signals."""

    def __init__(
        self, open_signals: OpenSignals, cancels: Cancels, skew: SkewMeter, clock: Clock, on_position: Callable[[Position], None]
    ) -> None:
        """`on_position` is called with the position of each signal acknowledged."""
        self._open = open_signals
        self._cancels = cancels
        self._skew = skew
        self._clock = clock
        self._on_position = on_position

    async def wait(self, sent: SentSignal) -> Position:
        """Wait for a signal's acknowledgement; a late one, or none, is followed by a cancel. Raises BusError when there is none.

        The append time decides whether it is late: what the broker had in time, consumers could act on in time.
        """
        signal = sent.signal
        try:
            position = await sent.acknowledgement
        except BusError as error:
            # It may have been appended all the same.
            self._open.end_flight(signal)
            self._cancels.send(signal, CancelReason.LATE_ACK, f"no acknowledgement: {error}")
            raise
        withdrawn = self._open.end_flight(signal)
        self._on_position(position)
        self._skew.seen(sent.at_ms, position.timestamp_ms, self._clock.now_ms())
        metrics.SIGNALS.labels(signal.action.value, signal.source, signal.vision).inc()
        late_ms = position.timestamp_ms - signal.valid_until_ms
        if late_ms > 0:
            self._cancels.send(signal, CancelReason.LATE_ACK, f"appended {late_ms} ms after its validity")
        elif withdrawn is not None:
            self._cancels.send(signal, *withdrawn)
        else:
            self._open.add(signal)
        return position
