"""What the worker shows of itself twice a second, whatever else it waits for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from schemas import RunMode
from services.core import metrics
from services.core.bus import TopicPartition
from services.core.clock import Clock
from services.core.instruments import Instruments
from services.core.session_gauge import set_session_gauge
from services.fusion.decide.control import ControlTable
from services.fusion.decide.lanes import Lanes
from services.fusion.deliver.overdue import Overdue
from services.fusion.deliver.watermark import Watermarks

_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Gauges:
    """The parts that are looked at."""

    clock: Clock
    run_mode: RunMode
    instruments: Instruments
    control: ControlTable
    lanes: Lanes
    overdue: Overdue
    watermarks: Watermarks

    async def keep(self) -> None:
        """Show what there is, for ever; cancel to end. In a task of its own: a broker that hangs must not hide what it does."""
        while True:
            self.show()
            await asyncio.sleep(_LOOK_S)

    def show(self) -> None:
        """Bring the gauges up to date."""
        now_ms = self.clock.now_ms()
        set_session_gauge(self.instruments.calendars(), self.run_mode, now_ms)
        self.control.show()
        for state, count in self.lanes.counts().items():
            metrics.LANES.labels(state).set(count)
        metrics.UNFINISHED_RECORDS.set(self.watermarks.unfinished)
        metrics.TRIGGER_OVERDUE_SECONDS.set(self.overdue.longest_ms(now_ms) / 1000)

    def done(self) -> dict[TopicPartition, int]:
        """Return for each partition held the offset below which all is done."""
        return {watermark.partition: watermark.committable()[0] for watermark in self.watermarks}
