"""What the worker publishes: signals in time or not at all, audit records, dead letters.

Signals have a producer of their own whose timeout is below the delivery reserve, so that no signal leaves a buffer after its time.
Outputs go to the partition of the records they rest on: recovery looks for them there, and the inputs' producers may hash keys otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

from schemas import AuditRecord, RunMode, Signal, Topic, topic_name
from services.core.bus import Headers, Position, Producer, Record
from services.core.clock import Clock
from services.core.dead_letters import send_dead_letter
from services.core.decode import Refused
from services.fusion.deliver.acknowledgements import Acknowledgements, SentSignal, SkewMeter
from services.fusion.deliver.cancels import Cancels
from services.fusion.deliver.open_signals import OpenSignals


class Publisher:
    """Writes the worker's outputs."""

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
        self._on_position = on_position
        self._signals_topic = topic_name(Topic.STRATEGY_SIGNALS, run_mode)
        self._audit_topic = topic_name(Topic.SIGNAL_AUDIT, run_mode)
        self._dead_letters_topic = topic_name(Topic.DEAD_LETTERS, run_mode)
        self.skew = SkewMeter()
        self.cancels = Cancels(others, clock, run_mode)
        self.open_signals = OpenSignals(self.cancels, lambda: self.skew.on_broker(clock.now_ms()))
        self.acknowledgements = Acknowledgements(self.open_signals, self.cancels, self.skew, clock, on_position)

    async def hand_over(self, signal: Signal, headers: Headers = ()) -> SentSignal:
        """Hand a signal to the producer. The caller has just checked its deadline."""
        self.open_signals.start_flight(signal)
        partition = signal.as_of.market.partition
        at_ms = self._clock.now_ms()
        try:
            acknowledgement = await self._signals.send(
                self._signals_topic, key=signal.symbol.encode(), value=signal.encode(), headers=headers, partition=partition
            )
        except BaseException:
            self.open_signals.end_flight(signal)
            raise
        return SentSignal(signal, acknowledgement, at_ms)

    async def flush_signals(self) -> None:
        """Return once every signal handed over so far is acknowledged or given up, which its producer's timeout bounds."""
        await self._signals.flush()

    async def audit(self, record: AuditRecord, headers: Headers = ()) -> None:
        """Write a trigger's outcome; return once it is acknowledged, and raise BusError when it is not."""
        at_ms = self._clock.now_ms()
        position = await (
            await self._others.send(
                self._audit_topic,
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
