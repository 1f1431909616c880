"""The producer of vision features: candles in, for each closed bar what the model sees in its chart out.

Every record is folded, ignored or dead-lettered, and counted. A batch of records is done once all that it made is acknowledged;
only then is the next one polled, so that a commit never passes unfinished work. Delivery is at least once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from services.core.metrics import DEAD_LETTERS, RECORDS, UNKNOWN_FIELDS, VISION_WINDOWS
from services.core.settings import Settings, SettingsError
from services.vision.book import Refusal, Window, WindowRules
from services.vision.books import Books, Dealt, Due, Outcome, Rules
from services.vision.forecast import Forecaster
from services.vision.look import look
from services.vision.partition import Partition, rebuild_from

_log = structlog.get_logger()

_CLIENT: Final = "aquiline-vision"
_POLL_MS: Final = 200
_HOUSEKEEPING_S: Final = 1.0


@dataclass(slots=True)
class Counts:
    """What became of the records read (`records` is the sum of `outcomes`), and of the windows that they made due."""

    records: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    dead_letters: Counter[DeadLetterReason] = field(default_factory=Counter)
    published: int = 0
    refused: Counter[Refusal] = field(default_factory=Counter)


class VisionService:
    """One member of the vision group. `run` it once; `counts` may be read at any time."""

    def __init__(self, bus: Bus, settings: Settings, clock: Clock, model: Forecaster, health: Health) -> None:
        """Make a service; raise SettingsError when the model sees other images than the settings say."""
        if model.spec.bars != settings.vision.window_bars:
            raise SettingsError(
                f"vision.window_bars is {settings.vision.window_bars}, and the weights are for images of {model.spec.bars} bars; "
                "set one to the other"
            )
        self.counts = Counts()
        self._bus = bus
        self._settings = settings
        self._clock = clock
        self._model = model
        self._health = health
        self._health.require("instruments", "assigned")
        mode = settings.run_mode
        self._candles = topic_name(Topic.CANDLES, mode)
        self._features = topic_name(Topic.VISION_FEATURES, mode)
        self._dead_letters = topic_name(Topic.DEAD_LETTERS, mode)
        self._instruments = Instruments(bus, clock, mode, f"{_CLIENT}-instruments")
        self._rules = Rules(
            modes=accepted_modes(mode),
            intervals=frozenset(settings.vision.intervals),
            stride=settings.vision.stride,
            max_bytes=settings.bus.max_record_bytes,
            max_skew_ms=settings.fusion.max_skew_ms,
            window=WindowRules(model.spec, settings.vision.max_gap_bars, settings.vision.max_jump),
            now_ms=clock.now_ms,
        )
        self._held: dict[TopicPartition, Partition] = {}
        # Held while a batch is in work, so that partitions change hands between batches only.
        self._working = asyncio.Lock()
        self._stopping = False
        self._caught_up_s = float("-inf")
        # One thread: the model is called from one at a time, and the loop goes on meanwhile.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vision")
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
            group=self._settings.vision.group, client_id=_CLIENT, instance_id=self._settings.bus.instance_id
        )
        try:
            await self._consumer.start([self._candles], self)
            await self._work()
        finally:
            # Leaving the group commits what is done (`on_revoked`), so it comes first.
            await self._consumer.close()
            await self._producer.close()
            await self._reader.close()
            await self._instruments.close()
            self._thread.shutdown()
        _log.info("vision_done", records=self.counts.records, published=self.counts.published)

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Rebuild the books of the partitions that are new here."""
        self._health.excuse("rebuilding")
        try:
            async with self._working:
                await self._rebuild(partitions - self._held.keys())
        finally:
            self._health.end_excuse("rebuilding")
        self._health.set("assigned")

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Commit `partitions` once the batch in work is done, and forget their books."""
        self._health.clear("assigned", "rebalancing")
        async with self._working:
            lost = {tp: self._held[tp] for tp in partitions if tp in self._held}
            await self._commit(lost)
            for tp in lost:
                del self._held[tp]

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + _HOUSEKEEPING_S
        while not self._stopping:
            records = await self._consumer.poll(timeout_ms=_POLL_MS)
            async with self._working:
                await self._take_all(records)
                if loop.time() >= due_s:
                    due_s = loop.time() + _HOUSEKEEPING_S
                    await self._commit(self._held)
                    await self._catch_up()
            self._health.progress()

    async def _take_all(self, records: Sequence[Record]) -> None:
        """Fold a polled batch, publish what it made due in as few passes of the model as `vision.batch` allows, and wait for acks."""
        taken: dict[TopicPartition, int] = {}
        windows: list[tuple[Record, Window]] = []
        acks: list[Awaitable[Position]] = []
        for record in records:
            tp = TopicPartition(record.topic, record.partition)
            held = self._held.get(tp)
            if held is None or record.offset < taken.get(tp, held.next_offset):
                continue  # polled before the partition moved: whoever holds it now reads it again
            dealt = await self._deal(held.books, record)
            self._count(dealt)
            if dealt.refused is not None:
                acks.append(await self._put_aside(record, dealt.refused))
            if dealt.due is not None and isinstance(dealt.due.window, Window):
                windows.append((record, dealt.due.window))
            taken[tp] = record.offset + 1
        for first in range(0, len(windows), self._settings.vision.batch):
            acks += await self._publish(windows[first : first + self._settings.vision.batch])
        await asyncio.gather(*acks)
        for tp, next_offset in taken.items():
            self._held[tp].next_offset = next_offset

    async def _deal(self, books: Books, record: Record) -> Dealt:
        """Fold a record; an instrument or a split may have been published just before it, so read on once before giving up."""
        dealt = books.take(record)
        if dealt.refused is not None and dealt.refused.reason is DeadLetterReason.UNKNOWN_INSTRUMENT and await self._catch_up():
            return books.take(record)
        due = dealt.due
        if due is not None and due.window is Refusal.SUSPECTED_SPLIT and await self._catch_up():
            return Dealt(dealt.outcome, books.again(due), unknown_fields=dealt.unknown_fields)
        return dealt

    async def _publish(self, windows: Sequence[tuple[Record, Window]]) -> list[Awaitable[Position]]:
        loop = asyncio.get_running_loop()
        drawn = [window for _, window in windows]
        seen = await loop.run_in_executor(self._thread, look, drawn, self._model, self._settings.run_mode)
        acks = [
            await self._producer.send(self._features, key=record.key, value=features.encode(), timestamp_ms=record.timestamp_ms)
            for (record, _), features in zip(windows, seen, strict=True)
        ]
        self.counts.published += len(acks)
        VISION_WINDOWS.labels("published").inc(len(acks))
        return acks

    def _count(self, dealt: Dealt) -> None:
        self.counts.records += 1
        self.counts.outcomes[dealt.outcome] += 1
        RECORDS.labels(Topic.CANDLES.value, dealt.outcome.value).inc()
        UNKNOWN_FIELDS.inc(dealt.unknown_fields)
        if dealt.refused is not None:
            self.counts.dead_letters[dealt.refused.reason] += 1
            DEAD_LETTERS.labels(dealt.refused.reason.value).inc()
        if dealt.due is not None and isinstance(dealt.due.window, Refusal):
            self._count_refusal(dealt.due, dealt.due.window)

    def _count_refusal(self, due: Due, refusal: Refusal) -> None:
        self.counts.refused[refusal] += 1
        VISION_WINDOWS.labels(refusal.value).inc()
        if refusal is not Refusal.TOO_FEW_BARS:
            _log.warning("window_refused", reason=refusal.value, symbol=due.symbol, interval=due.interval)

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
        """Read instruments and splits to their end, at most twice a second: strangers may keep coming. Return whether it did."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._caught_up_s < _HOUSEKEEPING_S / 2:
            return False
        self._caught_up_s = now_s
        try:
            await self._instruments.catch_up()
        except BusError as error:
            # What is known goes on being true; the next turn asks again.
            _log.warning("instruments_unreadable", reason=str(error))
            return False
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
            self._held[tp] = Partition(Books(self._instruments, self._rules), next_offset, next_offset)
            self._consumer.seek(tp, next_offset)
            start = next_offset if commit is None else max(begins[tp], rebuild_from(commit))
            # A commit past the log's end is of a topic made anew; the consumer's next poll refuses it with what is missing.
            if start < next_offset <= ends[tp]:
                starts[tp] = start
        if starts:
            await self._reader.read(starts)
        while any(self._reader.position(tp) < self._held[tp].next_offset for tp in starts):
            for record in await self._reader.poll(timeout_ms=_POLL_MS):
                held = self._held[TopicPartition(record.topic, record.partition)]
                if record.offset < held.next_offset:
                    held.books.take(record)
        _log.info("partitions_assigned", held=len(self._held), new=len(new), rebuilt=len(starts))

    async def _commit(self, held: dict[TopicPartition, Partition]) -> None:
        offsets = {tp: commit for tp, partition in held.items() if (commit := partition.to_commit()) is not None}
        if not offsets:
            return
        try:
            await self._consumer.commit(offsets)
        except BusError as error:
            # The next commit covers this one; and when the partitions have moved, their new holder starts from the last.
            _log.warning("commit_failed", reason=str(error))
            return
        for tp, commit in offsets.items():
            held[tp].committed = commit.offset

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
