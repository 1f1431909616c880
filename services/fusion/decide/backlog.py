"""Bounds on unfinished work: past one the oldest waiting triggers end, past a higher one reading pauses, to guard memory."""

from __future__ import annotations

from collections.abc import Iterator

import structlog

from services.core.bus import Consumer
from services.core.health import Health
from services.core.settings import FusionSettings
from services.fusion.decide.lanes import Ended, Lanes
from services.fusion.deliver.ownership import Ownership

_log = structlog.get_logger()


class Backlog:
    """Holds the worker's unfinished records within `max_unfinished` and `pause_at_unfinished`."""

    def __init__(self, settings: FusionSettings, lanes: Lanes, health: Health) -> None:
        """Take the bounds from `settings`; triggers in line are ended in `lanes`."""
        self._settings = settings
        self._lanes = lanes
        self._health = health
        self._paused = False

    def overdue(self, unfinished: int, writing: int) -> Iterator[Ended]:
        """Yield the triggers that end because more than `max_unfinished` records are unfinished, the oldest first.

        What waits for its acknowledgement alone (`writing`) is as good as done: a slow broker must not empty the lanes.
        """
        excess = unfinished - writing - self._settings.max_unfinished
        while excess > 0 and (ended := self._lanes.evict_oldest()) is not None:
            yield ended
            excess -= 1

    def pause_or_resume(self, unfinished: int, consumer: Consumer, ownership: Ownership) -> None:
        """Pause reading of both topics past `pause_at_unfinished`, and go on once half of that is done."""
        if not self._paused and unfinished > self._settings.pause_at_unfinished:
            self._paused = True
            self._health.excuse("paused")
            consumer.pause(sorted(consumer.assignment()))
            _log.warning("paused", unfinished=unfinished)
        elif self._paused and unfinished < self._settings.pause_at_unfinished // 2:
            self._paused = False
            self._health.end_excuse("paused")
            consumer.resume(sorted(ownership.readable(consumer.assignment())))
            _log.info("resumed", unfinished=unfinished)
