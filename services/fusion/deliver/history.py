"""What a partition's outputs record of earlier work: which triggers have an outcome, open signals, recent entries, and as-of.

Only what this worker may still need is kept: after offsets were repaired by hand, all outputs of months are read, 5 KB a signal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from schemas import Action, AsOf, AuditRecord, Cancel, OffsetRef, Outcome, Signal
from services.core.bus import TopicPartition
from services.fusion.state.triggers import LaneKey


class PublishedAction(NamedTuple):
    """What the guard has to know of a published signal."""

    symbol: str
    action: Action
    ts_event_ms: int
    ts_decided_ms: int


@dataclass(slots=True)
class PartitionHistory:
    """The work before this worker owned the partition, which reads on from the offsets `start`."""

    start: Mapping[TopicPartition, int] = field(default_factory=dict)
    now_ms: int = 0
    """Signals that were valid until then are expired."""
    since_ms: int = 0
    """Signals decided before do not matter to the guard."""
    ended: set[UUID] = field(default_factory=set)
    """Triggers at or after `start` that have an audit record."""
    unaudited: dict[UUID, Signal] = field(default_factory=dict)
    """By trigger id, signals of triggers at or after `start` whose audit record has not been read."""
    open: dict[UUID, Signal] = field(default_factory=dict)
    """By signal id, signals that are neither expired nor cancelled."""
    actions: list[PublishedAction] = field(default_factory=list)
    as_of: dict[LaneKey, AsOf] = field(default_factory=dict)
    """Each lane's furthest published as-of; decisions since the takeover move it on."""

    def add(self, message: Signal | Cancel | AuditRecord) -> None:
        """Take in one of the partition's own messages, in the order of its topic."""
        match message:
            case Signal():
                self._add_signal(message)
            case Cancel():
                self.open.pop(message.signal_id, None)
            case AuditRecord():
                self.unaudited.pop(message.trigger_id, None)
                if self._to_come(message.trigger):
                    self.ended.add(message.trigger_id)
                if message.outcome is Outcome.PUBLISHED and message.as_of is not None:
                    self._advance(LaneKey(message.symbol, message.interval, message.mode), message.as_of)

    def restored(self) -> None:
        """Forget what guard and publisher have taken over."""
        self.open.clear()
        self.actions.clear()

    def caught_up(self) -> None:
        """Forget earlier triggers: all that could be made again have been."""
        self.ended.clear()
        self.unaudited.clear()

    def _add_signal(self, signal: Signal) -> None:
        as_of = signal.as_of
        # A decision rests on its trigger's record or later ones: when both lie before the start, the trigger is not made again.
        to_come = self._to_come(as_of.market) or (as_of.vision is not None and self._to_come(as_of.vision))
        if to_come and signal.trigger_id not in self.ended:
            self.unaudited.setdefault(signal.trigger_id, signal)
        if signal.valid_until_ms > self.now_ms:
            self.open.setdefault(signal.signal_id, signal)
        if signal.ts_decided_ms >= self.since_ms:
            self.actions.append(PublishedAction(signal.symbol, signal.action, as_of.market.ts_event_ms, signal.ts_decided_ms))
        self._advance(LaneKey(signal.symbol, signal.interval, signal.mode), as_of)

    def _to_come(self, ref: OffsetRef) -> bool:
        return ref.offset >= self.start.get(TopicPartition(ref.topic, ref.partition), 0)

    def _advance(self, lane: LaneKey, as_of: AsOf) -> None:
        held = self.as_of.get(lane)
        if held is None or as_of.market.offset >= held.market.offset:
            self.as_of[lane] = as_of
