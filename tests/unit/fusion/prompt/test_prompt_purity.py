"""Prompts are pure functions of the log: any interleaving, any worker, after a restart, with any cache, the same ids."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import numpy as np
import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import Topic, interval_ms, topic_name
from services.core.bus import Committed, NewTopic, Record, TopicPartition
from services.core.bus.memory import MemoryBus
from services.core.calendar import SessionCalendar
from services.core.settings import Settings
from services.fusion.deliver import recovery
from services.fusion.deliver.recovery import Recovery
from services.fusion.prompt.blocks import Block
from services.fusion.prompt.builder import config_version
from services.fusion.prompt.layout import PAGE_BARS
from services.fusion.prompt.lines import Rows
from services.fusion.prompt.short_tail import short_legend
from services.strategy.folder import shipped
from tests.unit.fusion import build
from tests.unit.fusion.build import MARKET, MODE, START, SYMBOL, VISION, bar, bar_at, instrument, split
from tests.unit.fusion.log import Folder, Logs, no_tables, random_logs, taken_over

SMALL = build.settings(intervals=["1m", "5m"], window_bars=7, epoch_slots=3, slow_window_bars=3, min_bars=1)
BOTH = build.settings(intervals=["1m", "5m"], trigger_intervals=["1m", "5m"], window_bars=5, epoch_slots=2, slow_window_bars=3, min_bars=1)

Prompts = dict[tuple[int, str, str], tuple[object, str, list[int]]]


async def prompts_at(folder: Folder, step: int) -> Prompts:
    """Return as-of, hash and ids of every symbol's prompts."""
    found: Prompts = {}
    for book in folder.books:
        symbol = book.instrument.symbol
        for interval in sorted(folder.settings.fusion.trigger_interval_set):
            if len(book.bars[interval]):
                prompt = await folder.prompt(symbol, interval)
                found[step, symbol, interval] = (folder.as_of(symbol), prompt.hash, prompt.ids.tolist())
    return found


def steps(rng: random.Random, logs: Logs, count: int) -> list[tuple[int, int]]:
    """Return places in both logs, each at or after the one before, the last one at their ends."""
    market = sorted(rng.randint(0, len(logs.market)) for _ in range(count - 1))
    vision = sorted(rng.randint(0, len(logs.vision)) for _ in range(count - 1))
    return [*zip(market, vision, strict=True), (len(logs.market), len(logs.vision))]


def shuffled(rng: random.Random, one: list[Record], other: list[Record]) -> list[Record]:
    """Return both lists in one, the order within each kept."""
    a, b = list(one), list(other)
    merged: list[Record] = []
    while a or b:
        merged.append((a if a and (not b or rng.random() < len(a) / (len(a) + len(b))) else b).pop(0))
    return merged


async def restarted(at: tuple[int, int], logs: Logs, using: Settings) -> Folder:
    """Return what a worker has that takes the partition over with these offsets committed."""
    folder = Folder(using)
    bus = MemoryBus(folder.clock)
    admin = await bus.admin()
    config = {"message.timestamp.type": "CreateTime"}
    outputs = [topic_name(topic, MODE) for topic in (Topic.STRATEGY_SIGNALS, Topic.SIGNAL_AUDIT)]
    await admin.create([NewTopic(name, 1, config) for name in (MARKET, VISION, *outputs)])
    producer = await bus.producer(client_id="test")
    for one in (*logs.market, *logs.vision):
        await producer.send(one.topic, key=one.key, value=one.value, timestamp_ms=one.timestamp_ms)
    committed = {TopicPartition(topic, 0): Committed(offset, "a2:0:0:1") for topic, offset in zip((MARKET, VISION), at, strict=True)}
    await taken_over(Recovery(bus, using, folder.clock, folder.intake, folder.books, tables=no_tables(bus, folder.clock)), committed)
    return folder


async def workers_agree(seed: int, using: Settings) -> None:
    rng = random.Random(seed)  # noqa: S311
    logs = random_logs(rng, rng.randint(20, 80))
    places = steps(rng, logs, 3)
    server = FakeServer()
    first = Folder(using, redis=FakeAsyncRedis(server=server))
    # It keeps one prefix's ids at most, so that the other symbol's come back out of Redis, as far as they were stored.
    warm = Folder(using, redis=FakeAsyncRedis(server=server), local_bytes=1)
    late: Folder | None = None
    born = rng.randrange(len(places))
    before = (0, 0)
    for step, place in enumerate(places):
        market, vision = logs.market[before[0] : place[0]], logs.vision[before[1] : place[1]]
        first.feed([*market, *vision])
        warm.feed(shuffled(rng, market, vision))
        expected = await prompts_at(first, step)
        assert await prompts_at(warm, step) == expected
        if late is not None:
            late.feed([*vision, *market])
        if step == born:
            late = await restarted(place, logs, using)
        if late is not None:
            assert await prompts_at(late, step) == expected
        before = place
    for folder in (first, warm):
        await folder.store.close()


@pytest.fixture(autouse=True)
def _short_look_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebuild from a few records, so that small logs have a beginning to leave out."""
    monkeypatch.setattr(recovery, "_FIRST_LOOK_BACK", 64)


fast = settings(max_examples=60, deadline=None)


@fast
@given(seed=st.integers(0, 2**32))
def test_workers_agree_to_the_id_whatever_the_interleaving_the_restart_and_the_cache(seed: int) -> None:
    asyncio.run(workers_agree(seed, SMALL))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_workers_agree_where_slower_intervals_trigger_too(seed: int) -> None:
    asyncio.run(workers_agree(seed, BOTH))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_within_an_epoch_a_prefix_only_grows(seed: int) -> None:
    async def grows() -> None:
        rng = random.Random(seed)  # noqa: S311
        folder = Folder(SMALL)
        shown: dict[str, tuple[int, int, list[int]]] = {}
        for one in random_logs(rng, 40).market:
            folder.feed([one])
            symbol = (one.key or b"").decode()
            book = folder.books.get(symbol)
            if book is None or not len(book.bars["1m"]):
                continue
            prompt = await folder.prompt(symbol)
            prefix = prompt.ids[: prompt.prefix_tokens].tolist()
            index, version, former = shown.get(symbol, (prompt.prefix.index, book.epochs.version, []))
            if (index, version) == (prompt.prefix.index, book.epochs.version):
                assert prefix[: len(former)] == former
            shown[symbol] = (prompt.prefix.index, book.epochs.version, prefix)

    asyncio.run(grows())


@settings(max_examples=25, deadline=None)
@given(
    calendar=st.sampled_from(["24x7", "XNYS"]),
    name=st.integers(0, 10_000),
    window=st.integers(20, 70),
    slots=st.integers(5, 40),
    skipped=st.integers(0, 300),
)
def test_what_is_sent_ahead_is_what_the_next_epoch_starts_with(calendar: str, name: int, window: int, slots: int, skipped: int) -> None:
    """Nothing missing in the log: every slice that was ready before an epoch is the beginning of it, over nights too."""
    slots = min(slots, window - 1)
    using = build.settings(intervals=["1m", "15m"], window_bars=window, epoch_slots=slots, slow_window_bars=6)
    symbol = f"S{name}.XNYS"
    folder = Folder(using, instruments=[instrument(symbol, calendar=calendar)])
    closes = SessionCalendar.of(calendar)
    slow = set(closes.next_closes("15m", START, 80))
    ready: list[list[Block]] = []
    epoch: int | None = None
    sent = 0
    for offset, close_ms in enumerate(closes.next_closes("1m", START + skipped * 60_000, 480)):
        at = 2 * offset
        folder.feed([build.record(at, bar_at(close_ms - 60_000, 100 + offset % 7, symbol=symbol))])
        if close_ms in slow:
            opened = max(close_ms - interval_ms("15m"), START)
            folder.feed([build.record(at + 1, bar_at(opened, 100 + offset % 7, symbol=symbol, interval="15m"))])
        book = folder.book(symbol)
        blocks, _ = folder.prompts.current(book, "1m")
        index = book.epochs.boundaries("1m").index(close_ms)
        if epoch is not None and index != epoch:
            for ahead in ready:
                sent += 1
                assert blocks[: len(ahead)] == ahead
            ready = []
        epoch = index
        ready.append(folder.prompts.upcoming(book, "1m").blocks)
    assert sent


async def test_a_whole_epoch_is_ready_once_its_last_slot_has_closed() -> None:
    using = build.settings(window_bars=40, epoch_slots=8)
    folder = Folder(using, instruments=[instrument()])
    ready: dict[int, list[Block]] = {}
    for slot in range(120):
        folder.feed([build.record(slot, bar(slot, 100 + slot % 5))])
        book = folder.book(SYMBOL)
        index = book.epochs.boundaries("1m").index(book.bars["1m"].last_close_ms)
        if index in ready:
            blocks, fixed = folder.prompts.current(book, "1m")
            assert blocks == ready[index]
            assert len(blocks) - fixed == -(-min(40, slot) // PAGE_BARS) or slot < 40
        upcoming = folder.prompts.upcoming(book, "1m")
        if not upcoming.left:
            ready[index + 1] = upcoming.blocks
    assert len(ready) > 10


@pytest.mark.parametrize("known_ahead", [False, True])
async def test_a_split_rescales_every_interval_and_a_bar_that_spans_it(*, known_ahead: bool) -> None:
    effective_ms = START + 32 * 60_000
    event = split(effective_ms, 2.0)
    using = build.settings(intervals=["1m", "5m"])
    folder = Folder(using, instruments=[instrument()], splits=[event] if known_ahead else [])
    offset = 0
    for slot in range(60):
        bars = [bar(slot, 200.0 if slot < 32 else 100.0)]
        if slot % 5 == 4:
            bars.append(bar(slot // 5, 200.0 if slot // 5 * 5 < 32 else 100.0, interval="5m"))
        for one in bars:
            folder.feed([build.record(offset, one)])
            offset += 1
    book = folder.book(SYMBOL)
    version = book.epochs.version
    assert book.add_restatement(event) is not known_ahead
    assert book.epochs.version == version + (not known_ahead)
    for interval in ("1m", "5m"):
        assert set(book.bars[interval].close) == {100.0}
        assert book.bars[interval].jump_since(0, 1.8) is None
    corrected = bar(30, 202.0, revision=1)
    folder.feed([build.record(offset, corrected), build.record(offset + 1, corrected)])
    lines = Rows(book, "1m", 0).before(len(book.bars["1m"]), 60)
    assert {float(line.split()[1]) for line in lines} == {100.0, 101.0}


async def test_modes_differ_only_after_the_prefix_and_text_says_what_ids_say() -> None:
    folder = Folder(build.settings(), instruments=[instrument()])
    folder.feed([build.record(slot, bar(slot)) for slot in range(30)])
    book = folder.book(SYMBOL)
    plans = [folder.prompts.plan(book, "1m", mode) for mode in ("fast", "deep")]
    fast_one, deep_one = [await folder.prompts.build(plan) for plan in plans]
    assert fast_one.prefix_tokens == deep_one.prefix_tokens
    assert fast_one.hash != deep_one.hash
    assert np.array_equal(fast_one.ids[: fast_one.prefix_tokens], deep_one.ids[: fast_one.prefix_tokens])
    system, user = folder.prompts.text(plans[0])
    told = build.tokenizer().decode(fast_one.ids)
    assert system in told
    assert user in told
    repaired = folder.prompts.repair(fast_one.ids, "nonsense", "fast")
    assert np.array_equal(repaired[: len(fast_one.ids)], fast_one.ids)


async def test_a_thought_shares_the_prefix_of_mode_flash() -> None:
    folder = Folder(build.settings(mode="flash"), instruments=[instrument()])
    folder.feed([build.record(slot, bar(slot)) for slot in range(30)])
    plans = [folder.prompts.plan(folder.book(SYMBOL), "1m", mode) for mode in ("flash", "deep")]
    flash, deep = [await folder.prompts.build(plan) for plan in plans]
    assert np.array_equal(flash.ids[: flash.prefix_tokens], deep.ids[: flash.prefix_tokens])
    assert short_legend(shipped()) in folder.prompts.text(plans[1])[0]
    assert "close=" in plans[1].tail


def test_config_versions_differ_with_each_setting_that_shapes_a_prompt() -> None:

    changes: list[dict[str, object]] = [
        {},
        {"window_bars": 17},
        {"epoch_slots": 9},
        {"slow_window_bars": 9},
        {"max_vision_age_bars": 4},
        {"intervals": ["1m", "5m"]},
        {"mode": "flash"},
    ]
    versions = [config_version(build.settings(**change).fusion, build.tokenizer(), "minicpm4") for change in changes]
    versions.append(config_version(build.settings().fusion, build.tokenizer(), "chatml"))
    assert all(a != b for a, b in pairwise(sorted(versions)))
