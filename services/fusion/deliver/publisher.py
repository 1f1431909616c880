"""What the worker publishes: signals in time or not at all, cancels until acknowledged, audit records, dead letters.

Signals have a producer of their own whose timeout is below the delivery reserve, so that no signal leaves a buffer after its time.
Outputs go to the partition of the records they rest on: recovery looks for them there, and the inputs' producers may hash keys otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from schemas import Action, AuditRecord, Cancel, CancelReason, RunMode, Signal, Topic, topic_name
from services.core import metrics
from services.core.bus import BusError, Headers, Position, Producer, Record
from services.core.clock import Clock
from services.core.dead_letters import send_dead_letter
from services.core.decode import Refused

_OPENABLE: Final = frozenset({Action.BUY, Action.SELL, Action.EXIT})
_RETRY_MS: Final = 500

_log = structlog.get_logger()


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


class Publisher:
    """Writes the worker's outputs and knows which signals are still open."""

    def __init__(
        self,
        signals: Producer,
        others: Producer,
        *,
        clock: Clock,
        run_mode: RunMode,
        on_position: Callable[[Position], None],
    ) -> None:
        """`signals` is the producer with the short timeout; `on_position` is told of each signal and audit record acknowledged."""
        self._signals = signals
        self._others = others
        self._clock = clock
        self._run_mode = run_mode
        self.skew = SkewMeter()
        self._on_position = on_position
        self.signals_topic = topic_name(Topic.STRATEGY_SIGNALS, run_mode)
        self.audit_topic = topic_name(Topic.SIGNAL_AUDIT, run_mode)
        self._dead_letters_topic = topic_name(Topic.DEAD_LETTERS, run_mode)
        self._open: dict[str, list[Signal]] = {}
        self._in_flight: dict[UUID, Signal] = {}
        """Handed over and not acknowledged yet."""
        self._withdrawn: dict[UUID, tuple[CancelReason, str]] = {}
        """Signals in flight that are to be cancelled once they are acknowledged, so that the cancel comes after them."""
        self._cancelling: set[asyncio.Task[None]] = set()

    async def hand_over(self, signal: Signal, headers: Headers = ()) -> SentSignal:
        """Hand a signal to the producer. The caller has just checked its deadline."""
        self._in_flight[signal.signal_id] = signal
        partition = signal.as_of.market.partition
        at_ms = self._clock.now_ms()
        try:
            acknowledgement = await self._signals.send(
                self.signals_topic, key=signal.symbol.encode(), value=signal.encode(), headers=headers, partition=partition
            )
        except BaseException:
            self._end_flight(signal)
            raise
        return SentSignal(signal, acknowledgement, at_ms)

    async def acknowledged(self, sent: SentSignal) -> Position:
        """Wait for a signal's acknowledgement; a late one, or none, is followed by a cancel. Raises BusError when there is none."""
        signal = sent.signal
        try:
            position = await sent.acknowledgement
        except BusError as error:
            # It may have been appended all the same.
            self._end_flight(signal)
            self.cancel(signal, CancelReason.LATE_ACK, f"no acknowledgement: {error}")
            raise
        withdrawn = self._end_flight(signal)
        self._on_position(position)
        self.skew.seen(sent.at_ms, position.timestamp_ms, self._clock.now_ms())
        metrics.SIGNALS.labels(signal.action.value, signal.source, signal.vision).inc()
        late_ms = position.timestamp_ms - signal.valid_until_ms
        if late_ms > 0:
            self.cancel(signal, CancelReason.LATE_ACK, f"appended {late_ms} ms after its validity")
        elif withdrawn is not None:
            self.cancel(signal, *withdrawn)
        elif signal.action in _OPENABLE:
            self._supersede(signal)
        return position

    def cancel_open(self, symbol: str | None, reason: CancelReason, detail: str) -> int:
        """Cancel every unexpired signal of `symbol` (of all symbols when None), those in flight included; return how many."""
        names = [symbol] if symbol is not None else list(self._open)
        signals = [signal for name in names for signal in self._unexpired(name)]
        for name in names:
            self._open.pop(name, None)
        for signal in signals:
            self.cancel(signal, reason, detail)
        in_flight = [one for one in self._in_flight.values() if symbol in {None, one.symbol} and one.action in _OPENABLE]
        self._withdrawn.update((one.signal_id, (reason, detail)) for one in in_flight)
        return len(signals) + len(in_flight)

    def cancel(self, signal: Signal, reason: CancelReason, detail: str) -> None:
        """Withdraw one signal, in the background: a cancel is retried until it is acknowledged, however late."""
        message = Cancel(
            schema_version=1,
            run_mode=self._run_mode,
            symbol=signal.symbol,
            interval=signal.interval,
            mode=signal.mode,
            signal_id=signal.signal_id,
            ts_decided_ms=self._clock.now_ms(),
            reason=reason,
            detail=detail[:500],
        )
        partition = signal.as_of.market.partition
        task = asyncio.create_task(self._until_acknowledged(message, partition), name=f"cancel-{signal.signal_id}")
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)
        metrics.CANCELS.labels(reason.value).inc()
        _log.info("cancel", signal_id=str(signal.signal_id), symbol=signal.symbol, reason=reason.value)

    async def flush_signals(self) -> None:
        """Return once every signal handed over so far is acknowledged or given up, which its producer's timeout bounds."""
        await self._signals.flush()

    @property
    def cancelling(self) -> Collection[asyncio.Task[None]]:
        """Return the cancels that are on their way."""
        return self._cancelling

    async def cancels_written(self, timeout_ms: int) -> None:
        """Return once every cancel so far is acknowledged, or the time is up."""
        if self._cancelling:
            await asyncio.wait(self._cancelling, timeout=timeout_ms / 1000)

    async def stop(self) -> None:
        """Cancel the writing of cancels that the broker has not taken."""
        for task in list(self._cancelling):
            task.cancel()
        await asyncio.gather(*self._cancelling, return_exceptions=True)

    def restore(self, signal: Signal) -> None:
        """Note a signal that an earlier life of this worker published."""
        if signal.action in _OPENABLE:
            self._open.setdefault(signal.symbol, []).append(signal)

    def forget(self, symbol: str) -> None:
        """Forget the open signals of `symbol`: its next owner restores them."""
        self._open.pop(symbol, None)

    async def audit(self, record: AuditRecord, headers: Headers = ()) -> None:
        """Write a trigger's outcome; return once it is acknowledged, and raise BusError when it is not."""
        at_ms = self._clock.now_ms()
        position = await (
            await self._others.send(
                self.audit_topic,
                key=record.symbol.encode(),
                value=record.encode(),
                headers=headers,
                partition=record.trigger.partition,
            )
        )
        self._on_position(position)
        # Also where no signal leaves: one that is blocked for its clock's sake would never learn that the clock has been mended.
        self.skew.seen(at_ms, position.timestamp_ms, self._clock.now_ms())

    async def dead_letter(self, record: Record, refused: Refused) -> None:
        """Write a record to the dead letters as it came; return once acknowledged, and raise BusError when it is not."""
        await (await send_dead_letter(record, refused, self._others, self._dead_letters_topic, self._clock))

    def _end_flight(self, signal: Signal) -> tuple[CancelReason, str] | None:
        """Note that a signal is acknowledged or given up; return why it was withdrawn meanwhile, if it was."""
        self._in_flight.pop(signal.signal_id, None)
        return self._withdrawn.pop(signal.signal_id, None)

    async def _until_acknowledged(self, message: Cancel, partition: int) -> None:
        while True:
            try:
                key, value = message.symbol.encode(), message.encode()
                await (await self._others.send(self.signals_topic, key=key, value=value, partition=partition))
            except BusError as error:
                _log.warning("cancel_failed", signal_id=str(message.signal_id), error=str(error))
                await self._clock.sleep_until(self._clock.now_ms() + _RETRY_MS)
            else:
                return

    def _unexpired(self, symbol: str) -> list[Signal]:
        now_ms = self.skew.on_broker(self._clock.now_ms())
        return [signal for signal in self._open.get(symbol, ()) if signal.valid_until_ms > now_ms]

    def _supersede(self, signal: Signal) -> None:
        kept: list[Signal] = []
        replaced: list[Signal] = []
        for earlier in self._unexpired(signal.symbol):
            same_lane = (earlier.interval, earlier.mode) == (signal.interval, signal.mode)
            (replaced if same_lane and earlier.signal_id != signal.signal_id else kept).append(earlier)
        self._open[signal.symbol] = [*kept, signal]
        for earlier in replaced:
            self.cancel(earlier, CancelReason.SUPERSEDED, f"by {signal.signal_id}")
