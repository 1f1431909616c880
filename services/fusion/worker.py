"""The fusion worker: polls, and closes everything again.

poll -> fold (deliver/batches, state) -> line up, decide (decide) -> publish (deliver) -> acknowledged -> watermark -> commit
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final

import structlog

from schemas import RunMode
from services.core.lag import LagMonitor
from services.core.session_gauge import set_session_gauge
from services.fusion.observe.gauges import refresh_gauges
from services.fusion.rooms import Rooms, WorkerDependencies, open_rooms

_POLL_MS: Final = 100
_BATCH: Final = 500

_log = structlog.get_logger()


class FusionWorker:
    """One member of the fusion group. `open` it, then `run` it once; `accounts` may be read at any time."""

    def __init__(self, dependencies: WorkerDependencies, rooms: Rooms, opened: AsyncExitStack) -> None:
        """Use `open`; `opened` closes everything that it has opened."""
        self._bus = dependencies.bus
        self._settings = dependencies.settings
        self._clock = dependencies.clock
        self._health = dependencies.health
        self._engine = dependencies.engine
        self._rooms = rooms
        self._opened = opened
        self._stopping = False
        self.accounts = rooms.accounts
        self.prewarmer = rooms.prewarmer

    @classmethod
    async def open(cls, dependencies: WorkerDependencies) -> FusionWorker:
        """Return a worker that has read the tables and has not joined its group; raise BusError or SettingsError when it cannot work.

        What was opened before an error is closed again, the engines and Redis included.
        """
        async with AsyncExitStack() as opened:
            rooms = await open_rooms(dependencies, opened)
            return cls(dependencies, rooms, opened.pop_all())

    @property
    def caught_up(self) -> bool:
        """Return whether the books are rebuilt and all was read that the log held at the takeover: only then is anything asked."""
        return self._rooms.partitions.caught_up

    def stop(self) -> None:
        """Have `run` start nothing new, finish or abort what runs within `fusion.drain_ms`, commit and return."""
        self._stopping = True
        self._rooms.dispatcher.stop()

    async def catch_up_tables(self) -> None:
        """Read on to where the tables end now; for callers that move a virtual clock, since tables are followed in real time.

        After a leap of the clock `control` would otherwise count as unreadable.
        """
        await self._rooms.control.catch_up()
        await self._rooms.instruments.catch_up()
        await self._rooms.table_reader.catch_up()

    async def settle(self) -> None:
        """Return once every folded record's triggers are decided and acknowledged, or wait for a time that has not come."""
        rooms = self._rooms
        rooms.dispatcher.start_ready()
        while pending := [*rooms.dispatcher.running, *rooms.ledger.writing, *rooms.publisher.cancels.writing]:
            await asyncio.wait(pending)

    async def run(self) -> None:
        """Work until `stop`; raise BusError, SettingsError or PoisonedStreamError when it cannot go on."""
        rooms = self._rooms
        try:
            await rooms.consumer.start(rooms.intake.topics, rooms.ownership)
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(work, name=name)
                    for name, work in (
                        ("control", rooms.control.follow()),
                        ("instruments", rooms.instruments.follow()),
                        ("tables", rooms.table_reader.follow()),
                        ("prewarm", rooms.prewarmer.run()),
                        ("housekeeping", self._keep_house()),
                        ("takeover", rooms.ownership.run()),
                        ("fence", rooms.fence.keep()),
                        ("gauges", self._refresh_gauges()),
                        ("lag", LagMonitor(self._bus, f"{self._settings.fusion_group}-lag", rooms.partitions.finished).run()),
                        ("engine", self._watch_engine()),
                    )
                ]
                try:
                    await self._poll()
                finally:
                    await rooms.consumer.close()
                    for helper in helpers:
                        helper.cancel()
        finally:
            await self._opened.aclose()
            rooms.counter.flush()
            _log.info("fusion_done", **self.accounts.summary())

    async def _poll(self) -> None:
        """Poll, fold and start decisions; nothing in this loop waits for the model."""
        rooms = self._rooms
        while not self._stopping:
            records = await rooms.consumer.poll(timeout_ms=_POLL_MS, max_records=_BATCH)
            await rooms.folder.fold(records, rooms.dispatcher)
            rooms.dispatcher.dispatch()
            # A batch takes some milliseconds; tasks that wait for the loop run between two, a decision that begins before all else.
            await asyncio.sleep(0)
            self._health.progress()

    async def _keep_house(self) -> None:
        """Commit, and compare the prefixes in use with the engine's capacity, for ever."""
        while True:
            await asyncio.sleep(self._settings.fusion.commit_interval_ms / 1000)
            await self._rooms.ownership.commit()
            self._rooms.upkeep.check_capacity()

    async def _refresh_gauges(self) -> None:
        rooms = self._rooms

        def sessions() -> None:
            set_session_gauge(rooms.instruments.calendars(), self._settings.run_mode, self._clock.now_ms())

        await refresh_gauges(
            [
                sessions,
                rooms.control.update_gauges,
                rooms.dispatcher.update_gauges,
                rooms.ledger.update_gauges,
                rooms.partitions.update_gauges,
            ]
        )

    async def _watch_engine(self) -> None:
        # A replay's clock leaps from record to record: an engine would be idle between any two of them.
        if self._settings.run_mode is not RunMode.REPLAY:
            await self._engine.watch()
