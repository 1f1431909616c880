"""The records of both inputs, taken from Faust's channel and handed out in the order in which they were appended, none left out.

How a take-over goes: (1) Faust reads the changelogs of what was assigned; (2) it seeks to the commits; (3) `open` starts each
partition there; (4) a record of another generation of the group, or one that does not follow the one before, is not taken, and read
again. Faust may deliver either around a rebalance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, cast

import structlog
from faust.types import TP, EventT, TopicT

from services.core.bus import Bus, Headers, OffsetOutOfRangeError, Reader, Record, TopicPartition
from services.core.errors import ServiceError
from services.core.topic_settings import TopicSettings
from services.scoring.faust_app import App
from services.scoring.faust_consumer import Consumer
from services.scoring.topic_merge import Merge

_log = structlog.get_logger()

_MOST_WAITING: Final = 2_000
"""Above this many records of a partition that wait for the other topic's, reading it pauses until a quarter is left."""
_LOOK_MS: Final = 5_000

Event = EventT[Any]


class Inputs:
    """Both topics of every partition held. Side 0 is the first of `topics`, side 1 the second."""

    def __init__(self, app: App, channel: TopicT, topics: tuple[str, str], names: TopicSettings) -> None:
        """Take what arrives on `channel`. Faust knows topics by the broker's names, all else by those in `topics`."""
        self._app = app
        self._names = names
        self._channel = channel
        self._topics = topics
        self._merge: Merge[Event] = Merge()
        self._opened = asyncio.Event()
        self._generation: int | None = None
        self._sought: dict[TopicPartition, int] = {}
        """The last offset seen of what is read again."""
        self._tails: dict[TopicPartition, int] = {}
        """What stood still before the end of its log at the last look, with the offset that is read next."""
        self._paused: set[TopicPartition] = set()
        self._done: dict[TopicPartition, int] = {}
        self._reader: Reader
        self._checker: Reader
        self.arrived = asyncio.Event()
        """Set when there may be something to take."""

    async def start(self, bus: Bus) -> None:
        """Connect what asks the broker where logs begin and end."""
        self._reader = await bus.reader(client_id="aquiline-scoring-ends")
        self._checker = await bus.reader(client_id="aquiline-scoring-gaps")

    async def close(self) -> None:
        """Disconnect."""
        await self._reader.close()
        await self._checker.close()

    @property
    def stale(self) -> bool:
        """Return whether Faust has taken partitions over that are not open yet."""
        generation = self._app.consumer_generation_id
        return not self._app.rebalancing and generation != self._generation and self._app.tables.actives_ready

    @property
    def done(self) -> dict[TopicPartition, int]:
        """Return the offset after the last record taken, for each partition held."""
        return dict(self._done)

    @property
    def partitions(self) -> list[int]:
        """Return the partitions held."""
        return self._merge.partitions()

    async def open(self) -> None:
        """Start what is assigned where the group's commits say; raise OffsetOutOfRangeError when the log no longer reaches there."""
        consumer, generation = self._app.consumer, self._app.consumer_generation_id
        held = {TopicPartition(self._names.of_broker(tp.topic), tp.partition) for tp in consumer.assignment()}
        assigned = {tp for tp in held if tp.topic in self._topics}
        numbers = {tp.partition for tp in assigned}
        if len(assigned) != 2 * len(numbers):
            raise ServiceError(
                f"partitions of {self._topics[0]} and {self._topics[1]} were assigned to different workers ({sorted(assigned)}); "
                "end every worker of the group and start them anew"
            )
        begins = await self._reader.beginning_offsets(sorted(assigned))
        ends = await self._reader.end_offsets(sorted(assigned))
        sought: dict[TP, int | None] = consumer._committed_offset  # type: ignore[attr-defined] # noqa: SLF001 - nothing public tells
        committed = {tp: sought.get(self._fausts(tp)) for tp in assigned}
        missing = {
            tp: max(begins[tp] - at, at - ends[tp]) for tp, at in committed.items() if at and at > 0 and not begins[tp] <= at <= ends[tp]
        }
        if missing:
            raise OffsetOutOfRangeError(missing)
        for number in sorted(numbers):
            first, second = (TopicPartition(topic, number) for topic in self._topics)
            starts = (committed[first] or begins[first], committed[second] or begins[second])
            self._merge.begin(number, starts)
            self._done |= {first: starts[0], second: starts[1]}
        self._generation = generation
        self._opened.set()
        _log.info("partitions_taken_over", partitions=len(numbers))

    def shut(self) -> None:
        """Forget what waits: partitions are about to move."""
        self._opened.clear()
        self._generation = None
        self._merge.drop()
        self._done.clear()
        self._sought.clear()
        self._tails.clear()
        self._paused.clear()

    async def follow(self) -> None:
        """Take in what arrives, for ever; cancel to end."""
        while True:
            event = await self._channel.queue.get()
            await self._opened.wait()  # Faust reads on before `open` knows of it
            if await self._follows(event):
                message = event.message
                side = self._side(message)
                self._merge.put(side, message.partition, message.offset, round(message.timestamp * 1000), event)
                self._pace(side, message.partition)
            self.arrived.set()

    def take(self) -> Event | None:
        """Return the next record, None when every partition waits."""
        event = self._merge.take()
        if event is None:
            return None
        message = event.message
        side = self._side(message)
        self._done[TopicPartition(self._topics[side], message.partition)] = message.offset + 1
        if self._paused:
            self._pace(side, message.partition)
        return event

    async def look(self) -> bool:
        """Ask the broker where the sides end that others wait for; return whether there were any."""
        awaited = self._merge.awaited()
        if not awaited:
            return False
        ticket = self._merge.ask()
        ends = await self._reader.end_offsets([TopicPartition(self._topics[side], number) for side, number in awaited])
        for tp, end in ends.items():
            self._merge.end(self._topics.index(tp.topic), tp.partition, end, ticket)
        return True

    async def behind(self) -> int:
        """Return how many records of the partitions held have not been read."""
        sides = {TopicPartition(self._topics[side], number): (side, number) for number in self.partitions for side in (0, 1)}
        ends = await self._reader.end_offsets(sorted(sides))
        await self._skip_empty_tails(ends)
        return sum(
            max(0, end - self._merge.next_offset(*sides[tp])) + self._merge.size(*sides[tp])
            for tp, end in ends.items()
            if self._merge.holds(tp.partition)
        )

    async def _skip_empty_tails(self, ends: Mapping[TopicPartition, int]) -> None:
        """Pass offsets without a record at the end of a log (aborted transactions, markers): no later record shows that they are.

        Only what stood still since the last call is looked at: elsewhere records are on their way.
        """
        before, self._tails = self._tails, {}
        for tp, end in ends.items():
            side, generation = self._topics.index(tp.topic), self._generation
            if not self._merge.holds(tp.partition):
                return  # partitions moved while the broker was asked
            expected = self._merge.next_offset(side, tp.partition)
            if expected >= end or self._merge.size(side, tp.partition):
                continue
            self._tails[tp] = expected
            if before.get(tp) != expected or not await self._is_empty(tp, expected, end):
                continue
            if self._generation != generation or self._merge.next_offset(side, tp.partition) != expected:
                return
            await cast("Consumer", self._app.consumer).skip(self._fausts(tp), expected, end)
            self._merge.skip_to(side, tp.partition, end)
            self._done[tp] = end

    async def _is_empty(self, tp: TopicPartition, first: int, end: int) -> bool:
        """Return whether the log has no record from `first` to before `end`."""
        await self._reader.read({tp: first})
        async with asyncio.timeout(_LOOK_MS / 1000):
            while self._reader.position(tp) < end:
                if await self._reader.poll(timeout_ms=200, max_records=1):
                    return False
        return True

    async def _follows(self, event: Event) -> bool:
        """Return whether the record is of this generation and follows the one before; have what lies between read again otherwise."""
        message = event.message
        if not self._current(message):
            return False
        side = self._side(message)
        tp = TopicPartition(self._topics[side], message.partition)
        expected = self._merge.next_offset(side, tp.partition)
        if message.offset <= expected:
            self._sought.pop(tp, None)
            return True
        if tp in self._sought and message.offset > self._sought[tp]:
            self._sought[tp] = message.offset
            return False  # what is left of before the seek
        # Aborted transactions and markers leave offsets without a record: only the log knows.
        first = await self._first_at(tp, expected)
        consumer = cast("Consumer", self._app.consumer)
        if first > expected:
            await consumer.skip(self._fausts(tp), expected, first)
        if not self._current(message):
            return False
        self._merge.skip_to(side, tp.partition, first)
        if first == message.offset:
            return True
        _log.warning("records_left_out", topic=tp.topic, partition=tp.partition, expected=first, delivered=message.offset)
        self._sought[tp] = message.offset
        consumer.read_again(self._fausts(tp), first)
        return False

    def _side(self, message: Any) -> int:
        return self._topics.index(self._names.of_broker(message.topic))

    def _fausts(self, tp: TopicPartition) -> TP:
        return TP(self._names.on_broker(tp.topic), tp.partition)

    def record_of(self, event: Event) -> Record:
        """Return the event's record, its headers as they came."""
        message = event.message
        headers = message.headers or ()
        pairs: Headers = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        topic, at_ms = self._topics[self._side(message)], round(message.timestamp * 1000)
        return Record(topic, message.partition, message.offset, at_ms, message.key, message.value, pairs)

    def _current(self, message: Any) -> bool:
        generation = self._generation
        return generation is not None and message.generation_id == generation == self._app.consumer_generation_id

    async def _first_at(self, tp: TopicPartition, offset: int) -> int:
        """Return the first offset from `offset` on that has a record."""
        await self._checker.read({tp: offset})
        async with asyncio.timeout(_LOOK_MS / 1000):
            while True:
                records = await self._checker.poll(timeout_ms=200, max_records=1)
                if records:
                    return records[0].offset

    def _pace(self, side: int, partition: int) -> None:
        """Pause a topic of which too much waits, and go on with it once that has had its turn."""
        tp, waiting = TopicPartition(self._topics[side], partition), self._merge.size(side, partition)
        if waiting > _MOST_WAITING and tp not in self._paused:
            self._paused.add(tp)
            self._app.consumer.pause_partitions({self._fausts(tp)})
        elif waiting < _MOST_WAITING // 4 and tp in self._paused:
            self._paused.discard(tp)
            self._app.consumer.resume_partitions({self._fausts(tp)})
