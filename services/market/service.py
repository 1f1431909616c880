"""The producer of market features: candles in, each with its indicators out, and the higher bars built from them.

Every candle is folded, ignored or dead-lettered, and counted; an offset is committed once all that its record and those before it
made is acknowledged. Delivery is at least once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Final

import structlog

from schemas import DeadLetter, DeadLetterReason, Topic, topic_name
from services.core.bus import Bus, BusError, Consumer, Position, Producer, Reader, Record, TopicPartition
from services.core.calendar import CalendarError, SessionCalendar
from services.core.clock import Clock
from services.core.decode import Refused, accepted_modes
from services.core.health import Health
from services.core.instruments import Instruments
from services.core.metrics import DEAD_LETTERS, MARKET_FEATURES, RECORDS, UNKNOWN_FIELDS
from services.core.settings import Settings, SettingsError
from services.market.book import check_plan
from services.market.books import Books, Dealt, Outcome, Rules
from services.market.partition import Ack, Partition, rebuild_from

_log = structlog.get_logger()

_CLIENT: Final = "aquiline-market"
_POLL_MS: Final = 200
_HOUSEKEEPING_S: Final = 1.0
# Above this many unfinished records of a partition the oldest is waited for: it bounds memory when the broker is slow.
_MAX_UNFINISHED: Final = 10_000


@dataclass(slots=True)
class Counts:
    """What became of the records read (`records` is the sum of `outcomes`), and how many features were published."""

    records: int = 0
    features: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    dead_letters: Counter[DeadLetterReason] = field(default_factory=Counter)


class MarketService:
    """One member of the market group. `run` it once; `counts` may be read at any time."""

    def __init__(self, bus: Bus, settings: Settings, clock: Clock, health: Health) -> None:
        """Make a service; raise SettingsError when `market.aggregate` cannot be built."""
        try:
            check_plan(settings.market.aggregate)
        except ValueError as error:
            raise SettingsError(f"market.aggregate: {error}") from error
        self.counts = Counts()
        self._bus = bus
        self._settings = settings
        self._clock = clock
        self._instruments = Instruments(bus, clock, settings.run_mode, f"{_CLIENT}-instruments")
        self._health = health
        self._health.require("instruments", "assigned")
        self._candles = topic_name(Topic.CANDLES, settings.run_mode)
        self._features = topic_name(Topic.MARKET_FEATURES, settings.run_mode)
        self._dead_letters = topic_name(Topic.DEAD_LETTERS, settings.run_mode)
        self._rules = Rules(
            modes=accepted_modes(settings.run_mode),
            max_bytes=settings.bus.max_record_bytes,
            max_skew_ms=settings.fusion.max_skew_ms,
            plan=settings.market.aggregate,
        )
        self._partitions: dict[TopicPartition, Partition] = {}
        # Held while records are folded, so that partitions change hands between batches only.
        self._folding = asyncio.Lock()
        self._stopping = False
        self._caught_up_s = float("-inf")
        self._producer: Producer
        self._reader: Reader
        self._consumer: Consumer

    def stop(self) -> None:
        """Have `run` publish and commit what it has begun, and return."""
        self._stopping = True

    async def run(self) -> None:
        """Work until `stop`; raise BusError when topics are not as they must be, or the broker does not take a record."""
        await self._check_topics()
        await self._instruments.start()
        await self._load_calendars()
        self._health.set("instruments")
        self._producer = await self._bus.producer(client_id=_CLIENT)
        self._reader = await self._bus.reader(client_id=f"{_CLIENT}-rebuild")
        self._consumer = await self._bus.consumer(
            group=self._settings.market.group, client_id=_CLIENT, instance_id=self._settings.bus.instance_id
        )
        try:
            await self._consumer.start([self._candles], self)
            await self._work()
        finally:
            # Leaving the group commits what is acknowledged (`on_revoked`), so it comes first.
            await self._consumer.close()
            await self._producer.close()
            await self._reader.close()
            await self._instruments.close()
        _log.info("market_done", records=self.counts.records, features=self.counts.features)

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Rebuild the books of the partitions that are new here."""
        self._health.excuse("rebuilding")
        try:
            async with self._folding:
                await self._rebuild(partitions - self._partitions.keys())
        finally:
            self._health.end_excuse("rebuilding")
        self._health.set("assigned")

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Wait for what is under way on `partitions`, commit it and forget their books."""
        self._health.clear("assigned", "rebalancing")
        async with self._folding:
            lost = {tp: self._partitions[tp] for tp in partitions if tp in self._partitions}
            try:
                await self._producer.flush()
                for partition in lost.values():
                    await partition.settle()
            except BusError as error:
                # Somebody else reads from the last commit: what was published since is published again, as the same bars.
                _log.warning("drain_failed", reason=str(error))
            await self._commit(lost)
            for tp in lost:
                del self._partitions[tp]

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + _HOUSEKEEPING_S
        while not self._stopping:
            records = await self._consumer.poll(timeout_ms=_POLL_MS)
            async with self._folding:
                for record in records:
                    await self._take(record)
                    # A batch takes some 0.2 s, and on the in-process bus nothing in it waits: others on this loop get their turn.
                    await asyncio.sleep(0)
                for partition in self._partitions.values():
                    partition.advance()
                    await partition.settle(at_most=_MAX_UNFINISHED)
                if loop.time() >= due_s:
                    due_s = loop.time() + _HOUSEKEEPING_S
                    await self._commit(self._partitions)
                    await self._instruments.catch_up()
            self._health.progress()

    async def _take(self, record: Record) -> None:
        partition = self._partitions.get(TopicPartition(record.topic, record.partition))
        if partition is None or record.offset < partition.next_offset:
            return  # polled before the partition moved: whoever holds it now reads it again
        dealt = partition.books.take(record)
        if dealt.refused is not None and dealt.refused.reason is DeadLetterReason.UNKNOWN_INSTRUMENT and await self._catch_up():
            dealt = partition.books.take(record)
        self._count(dealt)
        acks: list[Ack] = []
        if dealt.refused is not None:
            acks.append(_ack(await self._put_aside(record, dealt.refused)))
        for features in dealt.features:
            sent = await self._producer.send(self._features, key=record.key, value=features.encode(), timestamp_ms=record.timestamp_ms)
            acks.append(_ack(sent))
            MARKET_FEATURES.labels("closed" if features.closed else "forming").inc()
        partition.begin(record.offset, acks)

    def _count(self, dealt: Dealt) -> None:
        self.counts.records += 1
        self.counts.features += len(dealt.features)
        self.counts.outcomes[dealt.outcome] += 1
        RECORDS.labels(Topic.CANDLES.value, dealt.outcome.value).inc()
        UNKNOWN_FIELDS.inc(dealt.unknown_fields)
        if dealt.refused is not None:
            self.counts.dead_letters[dealt.refused.reason] += 1
            DEAD_LETTERS.labels(dealt.refused.reason.value).inc()

    async def _put_aside(self, record: Record, refused: Refused) -> Awaitable[Position]:
        _log.warning(
            "dead_lettered",
            reason=refused.reason.value,
            detail=refused.detail,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
        )
        letter = DeadLetter(
            refused.reason,
            refused.detail,
            record.topic,
            record.partition,
            record.offset,
            attempts=1,
            ts_ms=self._clock.now_ms(),
        )
        return await self._producer.send(
            self._dead_letters, key=record.key, value=record.value, headers=[*record.headers, *letter.to_headers()]
        )

    async def _catch_up(self) -> bool:
        """Read instruments that were published just before the candle; at most once a second, as strangers may keep coming."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._caught_up_s < _HOUSEKEEPING_S:
            return False
        self._caught_up_s = now_s
        await self._instruments.catch_up()
        return True

    async def _rebuild(self, new: frozenset[TopicPartition]) -> None:
        """Fold the log again up to each partition's commit, publishing nothing, and go on reading there."""
        committed = await self._consumer.committed(sorted(new))
        begins = await self._reader.beginning_offsets(sorted(new))
        ends = await self._reader.end_offsets(sorted(new))
        starts: dict[TopicPartition, int] = {}
        for tp in new:
            commit = committed[tp]
            next_offset = begins[tp] if commit is None else commit.offset
            self._partitions[tp] = Partition(Books(self._instruments, self._rules), next_offset)
            self._consumer.seek(tp, next_offset)
            start = next_offset if commit is None else max(begins[tp], rebuild_from(commit))
            # A commit past the log's end is of a topic made anew; the consumer's next poll refuses it with what is missing.
            if start < next_offset <= ends[tp]:
                starts[tp] = start
        read = 0
        if starts:
            await self._reader.read(starts)
        while any(self._reader.position(tp) < self._partitions[tp].next_offset for tp in starts):
            for record in await self._reader.poll(timeout_ms=_POLL_MS):
                partition = self._partitions[TopicPartition(record.topic, record.partition)]
                if record.offset < partition.next_offset:
                    partition.books.take(record)
                    read += 1
        _log.info("partitions_assigned", held=len(self._partitions), new=len(new), records_read_back=read)

    async def _commit(self, partitions: dict[TopicPartition, Partition]) -> None:
        offsets = {tp: commit for tp, partition in partitions.items() if (commit := partition.to_commit()) is not None}
        if not offsets:
            return
        try:
            await self._consumer.commit(offsets)
        except BusError as error:
            # The next commit covers this one; and when the partitions have moved, their new holder starts from the last.
            _log.warning("commit_failed", reason=str(error))
            return
        for tp, commit in offsets.items():
            partitions[tp].committed(commit.offset)

    async def _load_calendars(self) -> None:
        """Build calendars off the loop: the first takes a second, and a member silent for long is thrown out of its group."""
        for name in self._instruments.calendars():
            try:
                await asyncio.to_thread(SessionCalendar.of, name)
            except CalendarError as error:
                _log.error("calendar_unknown", calendar=name, problem=str(error))

    async def _check_topics(self) -> None:
        admin = await self._bus.admin()
        try:
            found = await admin.describe([self._candles, self._features, self._dead_letters])
        finally:
            await admin.close()
        for name in (self._candles, self._features, self._dead_letters):
            if name not in found:
                raise BusError(f"topic {name!r} does not exist on {self._bus.address}; create it")
        candles, features = found[self._candles].partitions, found[self._features].partitions
        if candles != features:
            raise BusError(
                f"topic {self._features!r} has {features} partitions and {self._candles!r} has {candles}; a symbol must have the "
                "same partition in both, so make them anew with the same count"
            )


def _ack(sent: Awaitable[Position]) -> Ack:
    return asyncio.ensure_future(sent)
