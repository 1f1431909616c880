"""What is folded of a batch, and what a commit says of it when folding fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Literal, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import DeadLetterReason, MarketFeatures
from services.core.bus import Record, TopicPartition
from services.core.decode import Refused
from services.core.folding.bar_fold import Fold
from services.core.instruments import Instruments
from services.fusion.deliver.accounts import Accounts, RecordCounter
from services.fusion.deliver.batches import BatchFolder
from services.fusion.deliver.ledger import Ledger
from services.fusion.deliver.partitions import Partitions
from services.fusion.deliver.watermark import PartitionWatermark
from services.fusion.observe.spans import TriggerSpans
from services.fusion.state.book import Book
from services.fusion.state.intake import Intake, NullSink, Taken
from tests.unit.fusion import build
from tests.unit.fusion.build import MARKET, SYMBOL, VISION, bar
from tests.unit.fusion.desk import HOLD, Desk, ScriptedEngine


@pytest.mark.parametrize("broken", [5, 7])
async def test_a_commit_does_not_pass_a_record_that_crashed_the_worker(monkeypatch: pytest.MonkeyPatch, broken: int) -> None:
    fold_closed = Book.fold_closed

    def failing(self: Book, given: MarketFeatures) -> Fold:
        if (given.symbol, given.ts_open_ms) == (SYMBOL, bar(broken).ts_open_ms):
            raise ZeroDivisionError
        return fold_closed(self, given)

    desk = await Desk.open(ScriptedEngine([HOLD]), start_from="latest")
    await desk.history()
    with monkeypatch.context() as patched:
        patched.setattr(Book, "fold_closed", failing)
        desk.start()
        await desk.ready()
        await desk.bars(*(bar(slot) for slot in range(5, 9)))
        with pytest.raises(ExceptionGroup) as caught:
            await desk.ended()
        assert caught.group_contains(ZeroDivisionError)
    assert (await desk.committed())[MARKET] <= broken
    async with desk.running():
        await desk.until(lambda: desk.worker.accounts.records["folded"] >= 9 - broken)
        await desk.concluded(1)
    assert (await desk.committed())[MARKET] == 9


Fate = Literal["folded", "duplicate", "filtered", "refused", "awaits_tables", "breaks"]
FATES = st.lists(
    st.sampled_from(["folded", "folded", "folded", "duplicate", "filtered", "refused", "awaits_tables", "breaks"]), max_size=30
)


class Fates(NullSink):
    """A worker's batch folder over an intake that does with each record what its value says, and what the watermark says meanwhile."""

    def __init__(self) -> None:
        self.accounts = Accounts()
        self.folded: list[int] = []
        self.dead: list[int] = []
        self.waits: list[tuple[int, int]] = []
        """The offset that awaited tables, and the offset that a commit would have named meanwhile."""
        self.leave_at_wait: int | None = None
        """Hand the partition back during this wait."""
        self.partitions = Partitions((MARKET, VISION), ("signals", "audit"))
        self.mark = PartitionWatermark(TopicPartition(MARKET, 0), 0)
        self.partitions.watermarks.assign(self.mark)
        self.owned = self.partitions.add(0)
        self.awaiting = -1
        self.batches = BatchFolder(
            cast("object", self),  # type: ignore[arg-type] # as a consumer
            self.partitions,
            cast("Instruments", self),
            cast("Intake", self),
            ledger=cast("Ledger", self),
            counter=RecordCounter(self.accounts, build.settings(max_dead_letter_ratio=1.0).fusion),
            spans=TriggerSpans(None, (MARKET, VISION)),
        )

    def position(self, partition: TopicPartition) -> int | None:
        return None if partition.topic == VISION else self.mark.next_offset

    def fold(self, topic: str, records: Iterable[Record], sink: object, *, may_wait: bool) -> Iterator[tuple[Record, Taken | Refused]]:
        assert sink is self
        for record in records:
            assert record.topic == topic
            match cast("Fate", (record.value or b"").decode()):
                case "breaks":
                    raise ZeroDivisionError
                case "awaits_tables" if may_wait:
                    self.awaiting = record.offset
                    yield record, "awaits_tables"
                case "folded" | "awaits_tables":
                    self.folded.append(record.offset)
                case "refused":
                    yield record, Refused(DeadLetterReason.LATE, "late")
                case other:
                    yield record, other

    def dead_letter(self, record: Record, refused: Refused, watermark: PartitionWatermark) -> None:
        assert refused.reason is DeadLetterReason.LATE
        assert watermark.next_offset == record.offset + 1
        self.dead.append(record.offset)

    async def refresh_for_record(self) -> None:
        self.waits.append((self.awaiting, self.mark.committable()[0]))
        if self.leave_at_wait == len(self.waits):
            self.owned.leaving = True


@settings(max_examples=300, deadline=None)
@given(fates=FATES, gap=st.integers(1, 3), leave_at_wait=st.none() | st.integers(1, 3))
def test_every_record_up_to_where_a_commit_may_go_has_one_account_whatever_becomes_of_those_after_it(
    fates: list[Fate], gap: int, leave_at_wait: int | None
) -> None:
    site = Fates()
    site.leave_at_wait = leave_at_wait
    records = [Record(MARKET, 0, gap * at, 0, b"k", fate.encode()) for at, fate in enumerate(fates)]
    broken = next((one.offset for one in records if one.value == b"breaks"), None)
    try:
        asyncio.run(site.batches.fold(records, site))
        assert broken is None or site.owned.leaving
    except ZeroDivisionError:
        assert broken is not None
    left = site.waits[-1][0] if site.owned.leaving else broken
    end = left if left is not None else records[-1].offset + 1 if records else 0
    assert all(awaiting - gap < committable <= awaiting for awaiting, committable in site.waits)
    assert end - gap < site.mark.committable()[0] <= end
    passed = [one for one in records if one.offset < end]
    assert site.folded == [one.offset for one in passed if one.value in {b"folded", b"awaits_tables"}]
    assert site.dead == [one.offset for one in passed if one.value == b"refused"]
    if broken is None or site.owned.leaving:
        assert sum(site.accounts.records.values()) == len(passed)
        assert site.accounts.records["folded"] == len(site.folded)


def test_a_batch_that_goes_back_in_its_partition_is_an_error() -> None:
    site = Fates()
    asyncio.run(site.batches.fold([Record(MARKET, 0, 5, 0, b"k", b"folded")], site))
    with pytest.raises(ValueError, match="offset 5 came after 5"):
        asyncio.run(site.batches.fold([Record(MARKET, 0, 5, 0, b"k", b"folded")], site))
    assert site.folded == [5]


@given(places=st.lists(st.tuples(st.sampled_from([MARKET, VISION]), st.integers(0, 1)), max_size=30))
def test_each_partition_in_a_mixed_batch_moves_its_own_watermark(places: list[tuple[str, int]]) -> None:
    site = Fates()
    site.partitions.add(1)
    marks = {TopicPartition(topic, number): PartitionWatermark(TopicPartition(topic, number), 0) for topic, number in set(places)}
    for mark in marks.values():
        site.partitions.watermarks.assign(mark)
    records = [Record(*place, places[:at].count(place), 0, b"k", b"folded") for at, place in enumerate(places)]
    asyncio.run(site.batches.fold(records, site))
    assert {partition: mark.next_offset for partition, mark in marks.items()} == {tp: places.count(tp) for tp in marks}
    assert site.accounts.records["folded"] == len(places)
