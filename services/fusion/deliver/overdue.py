"""Triggers that have no outcome yet, and how long the most overdue of them has been past its deadline. Pure: time is handed in."""

from __future__ import annotations

from uuid import UUID

from services.core.settings import FusionSettings
from services.fusion.state.triggers import Trigger


class Overdue:
    """Knows of each trigger from the moment it is made until the broker has acknowledged its outcome."""

    def __init__(self, settings: FusionSettings) -> None:
        """Take what makes a deadline from `settings`; that a session's close may bring it forward is left out."""
        self._settings = settings
        self._deadlines_ms: dict[UUID, int] = {}

    def open(self, trigger: Trigger) -> None:
        """Take a trigger in."""
        valid_until_ms = trigger.origin.ts_ms + self._settings.entry_validity(trigger.lane.interval)
        self._deadlines_ms[trigger.trigger_id] = valid_until_ms - self._settings.delivery_reserve_ms

    def close(self, trigger: Trigger) -> None:
        """Let a trigger go: its outcome is acknowledged, or it is another worker's."""
        self._deadlines_ms.pop(trigger.trigger_id, None)

    def longest_ms(self, now_ms: int) -> int:
        """Return how long the most overdue one has been past its deadline, 0 when none is."""
        return max(0, now_ms - min(self._deadlines_ms.values(), default=now_ms))
