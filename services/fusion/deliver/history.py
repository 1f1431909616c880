"""What a partition's own outputs say of earlier work: triggers that have an outcome, signals that were published, cancels, as-of."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from schemas import AsOf, AuditRecord, Cancel, Outcome, Signal
from services.fusion.state.triggers import LaneKey


@dataclass(slots=True)
class PartitionHistory:
    """The work before this worker owned the partition, as far back as it matters."""

    ended: set[uuid.UUID] = field(default_factory=set)
    """Triggers that have an audit record."""
    signals: dict[uuid.UUID, Signal] = field(default_factory=dict)
    """Published signals by trigger id, with or without an audit record."""
    cancelled: set[uuid.UUID] = field(default_factory=set)
    """Signal ids."""
    as_of: dict[LaneKey, AsOf] = field(default_factory=dict)
    """Each lane's furthest published as-of; decisions since the takeover move it on."""

    def add(self, message: Signal | Cancel | AuditRecord) -> None:
        """Take in one of the partition's own messages, in the order of its topic."""
        match message:
            case Signal():
                self.signals.setdefault(message.trigger_id, message)
                self._advance(LaneKey(message.symbol, message.interval, message.mode), message.as_of)
            case Cancel():
                self.cancelled.add(message.signal_id)
            case AuditRecord():
                self.ended.add(message.trigger_id)
                if message.outcome is Outcome.PUBLISHED and message.as_of is not None:
                    self._advance(LaneKey(message.symbol, message.interval, message.mode), message.as_of)

    def _advance(self, lane: LaneKey, as_of: AsOf) -> None:
        held = self.as_of.get(lane)
        if held is None or as_of.market.offset >= held.market.offset:
            self.as_of[lane] = as_of
