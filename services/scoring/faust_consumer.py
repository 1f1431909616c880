"""Faust's fetching, mended: what was fetched and not handed on is fetched again, and a partition can be read again from an offset.

Faust 0.15.3 drops what it cannot hand on, and nothing brings it back until the group moves. That is most likely while partitions move:
a fetch under way holds the set of partitions that are read, not a copy; once they are all paused the set is empty, which aiokafka
takes to mean all that are assigned, and what it hands out is dropped as flow has stopped. Of an input this lost the last records until
others came, and of a changelog it left the worker waiting for records that never came. A seek is undone by what is left of the
batch in hand: Faust notes its offsets as read, and drops the lower ones that the seek asked for. And what is handed on while it seeks
to the commits is later taken for offsets that have no record, which a commit passes: whether they have one, only the log knows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar, Final

import structlog
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, Message

from services.core.bus.kafka_client import ISOLATION_LEVEL

_log = structlog.get_logger()

_NOTHING_TO_READ_S: Final = 0.1


class Consumer(driver.Consumer):
    """Faust's consumer over aiokafka."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what Faust's does."""
        self._again: dict[TP, int] = {}
        self._seeking = 0
        self._seeks = 0
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def read_again(self, tp: TP, offset: int) -> None:
        """Hand on nothing of `tp` until it is read from `offset` on, which a fetch that waits for records may put off by a second."""
        self._again[tp] = offset

    async def skip(self, tp: TP, first: int, after: int) -> None:
        """Let commits pass the offsets from `first` to before `after`: the log has no record there."""
        await super()._add_gap(tp, first, after - 1)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Take what was not delivered for nothing more than that."""

    async def perform_seek(self) -> None:
        """Seek to the commits, handing on nothing of before."""
        self._seeking += 1
        try:
            await super().perform_seek()
        finally:
            self._seeking -= 1
            self._seeks += 1

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 - Faust's signature
        """Yield records of the partitions that are read, waiting up to `timeout` seconds for the first.

        Whoever iterates notes the offset of each as read before the next is asked for, so that between two calls nothing is in hand.
        """
        if not self.flow_active:
            await self.wait(self.can_resume_flow.wait())
        asked = set(self._get_active_partitions())
        if self._seeking or not asked:
            await self.sleep(_NOTHING_TO_READ_S)
            return
        turn = self._turn
        batches: Mapping[TP, list[Any]] = await self._getmany(active_partitions=asked, timeout=timeout)
        for tp, record in self.scheduler.iterate(batches):
            if tp in self._again:
                continue
            if self._turn != turn or not self._wanted(tp):
                self.read_again(tp, record.offset)
                continue
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            yield tp, self._to_message(tp, record)
        if self._again:
            again, self._again = self._again, {}
            await self._thread.call_thread(self._go_back, again)
            self._read_offset.update(dict.fromkeys(again))

    @property
    def _turn(self) -> tuple[int, int, int]:
        """Return what changes when records fetched before are not to be handed on any more."""
        return self.app.consumer_generation_id, self._seeks, self._seeking

    def _wanted(self, tp: TP) -> bool:
        return self.flow_active and (tp in self._get_active_partitions() or tp in self._buffered_partitions)

    async def _go_back(self, offsets: Mapping[TP, int]) -> None:
        """Seek, on the thread that fetches, and never forward: others may have gone back further."""
        client = self._thread._ensure_consumer()  # noqa: SLF001 - Faust's own way to it
        for tp, offset in offsets.items():
            try:
                if await client.position(tp) > offset:
                    client.seek(tp, offset)
                    _log.debug("reading_again", topic=tp.topic, partition=tp.partition, offset=offset)
            except IllegalStateError:
                continue  # it has moved, and whoever holds it starts at the commit


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's thread that reads, over a client that leaves out what aborted transactions wrote.

    Faust asks for committed records only when it writes transactions itself.
    """

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        client = super()._create_worker_consumer(transport)
        client._isolation_level = ISOLATION_LEVEL  # noqa: SLF001 - read when it starts, and Faust has no setting for it
        return client


class Transport(driver.Transport):
    """Faust's transport over aiokafka, with the consumer above."""

    Consumer: ClassVar[type[driver.Consumer]] = Consumer
