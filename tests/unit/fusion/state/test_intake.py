"""Folding records: what came before its instrument, splits known ahead and told late, and revisions of features alone."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import CancelReason, Instrument, InstrumentEvent, Message
from services.core.bus import Record
from services.core.decode import Refused
from services.fusion.state import early
from services.fusion.state.intake import NullSink, Taken
from services.fusion.state.triggers import Trigger
from tests.unit.fusion import build
from tests.unit.fusion.build import MARKET, MINUTE, START, SYMBOL, VISION, bar, bar_at, instrument, record, seen, split
from tests.unit.fusion.log import INSTRUMENTS, SYMBOLS, Folder, random_logs

USING = build.settings(intervals=["1m", "5m"], window_bars=12, epoch_slots=4, slow_window_bars=4, min_bars=1, trigger_on_move_atr=2.0)


class Heard(NullSink):
    """A sink that remembers."""

    takes_triggers = True

    def __init__(self) -> None:
        self.triggers: list[Trigger] = []
        self.changes: list[CancelReason] = []

    def trigger(self, trigger: Trigger, wait_until_ms: int, record: Record) -> None:
        del wait_until_ms, record
        self.triggers.append(trigger)

    def bars_changed(self, symbol: str, reason: CancelReason) -> None:
        del symbol
        self.changes.append(reason)

    @property
    def kinds(self) -> list[tuple[str, int]]:
        return [(trigger.kind, trigger.origin.offset) for trigger in self.triggers]


def publish(folder: Folder, message: Instrument | InstrumentEvent, sink: Heard) -> None:
    """Have a worker learn of an instrument or a split."""
    if isinstance(message, Instrument):
        folder.instruments._instruments[message.symbol] = message
    else:
        folder.instruments._fold_event(message)
        folder.intake.add_restatement(message, sink)


def unsplit(slot: int, at: int, *, closed: bool = True) -> Message:
    """Return a minute's bar of a market whose price falls from 400 to 100 in the `at`-th one."""
    return bar(slot, (400.0 if slot < at else 100.0) + slot % 3, closed=closed)


async def test_a_bar_that_overtakes_its_instrument_is_in_the_prompt_as_after_a_restart() -> None:
    records = [record(slot, bar(slot, 100 + slot % 5)) for slot in range(20)] + [record(0, seen(START + 3 * MINUTE), topic=VISION)]
    early_one, restarted = Folder(USING, instruments=[]), Folder(USING, instruments=[instrument()])
    for one in (*records[:7], records[20]):
        taken = early_one.intake.take(one, NullSink())
        assert isinstance(taken, Refused)
        assert taken.reason == "unknown_instrument"
    publish(early_one, instrument(), Heard())
    early_one.feed(records[7:20])
    restarted.feed(records)
    assert early_one.as_of(SYMBOL) == restarted.as_of(SYMBOL)
    assert (await early_one.prompt(SYMBOL)).hash == (await restarted.prompt(SYMBOL)).hash


def test_after_a_rebuild_the_policy_triggers_as_after_the_same_records_with_triggers_taken() -> None:
    records = [record(slot, bar(slot, 100 + slot % 5)) for slot in range(20)]
    records += [record(20 + slot, bar(20, 100 + 3 * slot, closed=False)) for slot in range(1, 8)] + [record(30, bar(20))]
    for cut in range(len(records)):
        rebuilt, followed = Folder(USING, instruments=[instrument()]), Folder(USING, instruments=[instrument()])
        rebuilt.feed(records[:cut])
        for one in records[:cut]:
            followed.intake.take(one, Heard())
        after_rebuild, after_following = Heard(), Heard()
        for one in records[cut:]:
            rebuilt.intake.take(one, after_rebuild)
            followed.intake.take(one, after_following)
        assert after_rebuild.triggers == after_following.triggers
    assert after_rebuild.kinds


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), newer=st.booleans())
def test_a_batch_folds_as_its_records_do_one_by_one_and_unknown_fields_change_nothing(seed: int, *, newer: bool) -> None:
    rng = random.Random(seed)  # noqa: S311
    records = unusable(rng, random_logs(rng, 24).market)
    sent = list(map(with_unknown_field, records)) if newer else records
    batched, single = (Folder(USING, instruments=[*INSTRUMENTS]) for _ in range(2))
    first, second = Heard(), Heard()
    disposed: list[tuple[int, str]] = []
    start = 0
    while start < len(records):
        stop = start + rng.randint(1, 60)
        disposed += [(one.offset, account(taken)) for one, taken in batched.intake.fold(MARKET, sent[start:stop], first)]
        start = stop
    each = [(one.offset, account(single.intake.take(one, second))) for one in records]
    assert disposed == [(offset, taken) for offset, taken in each if taken != "folded"]
    assert first.triggers == second.triggers
    assert first.changes == second.changes
    for symbol in SYMBOLS:
        assert batched.as_of(symbol) == single.as_of(symbol)
        if len(single.book(symbol).bars["1m"]):  # none after a late record on another partition, which then has the symbol
            assert asyncio.run(batched.prompt(symbol)).ids.tolist() == asyncio.run(single.prompt(symbol)).ids.tolist()


def account(taken: Taken | Refused) -> str:
    """Return the account that a record ends in."""
    return taken.reason.value if isinstance(taken, Refused) else taken


def unusable(rng: random.Random, records: list[Record]) -> list[Record]:
    """Return `records` with some among them that cannot be folded, for each reason that a record itself gives."""
    mixed: list[Record] = []
    for one in records:
        mixed.append(one)
        if rng.random() < 0.2:
            assert one.value is not None
            mixed.append(
                rng.choice(
                    [
                        one._replace(value=None),
                        one._replace(value=b""),
                        one._replace(value=b"{"),
                        one._replace(value=one.value[:-1] + b" " * USING.bus.max_record_bytes + b"}"),
                        one._replace(value=one.value.replace(b'"schema_version":1', b'"schema_version":2')),
                        one._replace(value=one.value.replace(b'"run_mode":"demo"', b'"run_mode":"replay"')),
                        one._replace(value=one.value.replace(b'"interval":"1m"', b'"interval":"2m"')),
                        one._replace(key=b"ANOTHER.XNAS"),
                        one._replace(key=None),
                        one._replace(partition=1),
                        one._replace(timestamp_ms=one.timestamp_ms - 3_600_000),
                    ]
                )
            )
    return [one._replace(offset=offset) for offset, one in enumerate(mixed)]


def with_unknown_field(one: Record) -> Record:
    """Return a record of a producer that knows a later version of the contract."""
    return one._replace(value=one.value and one.value.replace(b'"schema_version":', b'"of_a_later_version":[1],"schema_version":'))


def test_a_bar_of_an_unknown_symbol_waits_for_the_tables_where_it_may() -> None:
    folder = Folder(USING, instruments=[])
    one = record(0, bar(0))
    assert folder.intake.take(one, NullSink(), may_wait=True) == "awaits_tables"
    publish(folder, instrument(), Heard())
    assert folder.intake.take(one, NullSink(), may_wait=True) == "folded"


def test_a_bar_that_looks_like_a_split_waits_for_the_tables_where_it_may_once() -> None:
    folder = Folder(USING, instruments=[instrument()])
    folder.feed([record(slot, unsplit(slot, 5)) for slot in range(5)])
    jump = record(5, unsplit(5, 5))
    assert folder.intake.take(jump, NullSink(), may_wait=True) == "awaits_tables"
    publish(folder, split(START + 5 * MINUTE, 4.0), Heard())
    assert folder.intake.take(jump, NullSink(), may_wait=True) == "folded"
    assert folder.book(SYMBOL).suspected_split("1m", 1.8, 0) is None


@pytest.mark.parametrize("ratio", [2.0, 0.5])
def test_splits_that_would_make_prices_zero_or_infinite_are_refused_and_bars_go_on_folding(ratio: float) -> None:
    folder = Folder(USING, instruments=[instrument()])
    sink = Heard()
    folder.instruments.on_restatement = lambda event: folder.intake.add_restatement(event, sink)
    folder.feed([record(slot, bar(slot)) for slot in range(10)])
    for number in range(3_000):
        folder.instruments._fold_event(split(START + 20 * MINUTE + number, ratio))
    assert len(folder.instruments.restatements(SYMBOL)) < 60
    folder.feed([record(slot, bar(slot)) for slot in range(10, 40)])
    closes = folder.book(SYMBOL).bars["1m"].close
    assert all(0 < close < float("inf") for close in closes)
    assert folder.book(SYMBOL).bars["1m"].last_close_ms == bar(39).ts_close_ms


def test_early_records_are_bounded_and_go_with_their_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "_MAX_RECORDS", 4)
    held = early.EarlyRecords()
    for offset in range(3):
        held.add("OLD.XNAS", record(offset, bar(offset)))
    for offset in range(2):
        held.add("NEW.XNAS", record(offset, bar(offset), partition=1))
    assert held.pop(0, "OLD.XNAS") == []
    held.drop(1)
    assert held.pop(1, "NEW.XNAS") == []


async def races(seed: int) -> None:
    """Feed two workers one log; one learns of instrument and split at random moments, the other knew both when it started."""
    rng = random.Random(seed)  # noqa: S311
    at = rng.randint(8, 20)
    event = split(START + at * MINUTE, 4.0)
    messages: list[Message] = []
    for slot in range(32):
        if rng.random() < 0.4:
            messages.append(unsplit(slot, at, closed=False))
        messages.append(unsplit(slot, at))
        if slot % 5 == 4:
            start = slot // 5 * 5
            messages.append(bar(slot // 5, 400.0 if start < at else 100.0, interval="5m"))
        if rng.random() < 0.1:
            messages.append(bar(max(0, slot - rng.randint(0, 6)), 399.0 if slot - 6 < at else 99.0, revision=rng.randint(1, 3)))
    records = [record(offset, message) for offset, message in enumerate(messages)]
    known, told = sorted((rng.randrange(6), rng.randrange(len(records))))
    running, restarted = Folder(USING, instruments=[]), Folder(USING, instruments=[instrument()], splits=[event])
    first, second = Heard(), Heard()
    for offset, one in enumerate(records):
        if offset == known:
            publish(running, instrument(), first)
        if offset == told:
            publish(running, event, first)
        running.intake.take(one, first)
        restarted.intake.take(one, second)
        if offset >= max(known, told) and len(running.book(SYMBOL).bars["1m"]):
            assert (await running.prompt(SYMBOL)).ids.tolist() == (await restarted.prompt(SYMBOL)).ids.tolist()
    assert [kind for kind in first.kinds if kind[1] > told and kind[0] == "move"] == [
        kind for kind in second.kinds if kind[1] > told and kind[0] == "move"
    ]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_workers_agree_whenever_they_learn_of_instrument_and_split(seed: int) -> None:
    asyncio.run(races(seed))


async def test_a_split_known_ahead_takes_effect_with_the_first_bar_that_forms_after_it() -> None:
    event = split(START + 30 * MINUTE, 4.0)
    folder, heard = Folder(USING, instruments=[instrument()], splits=[event]), Heard()
    for slot in range(30):
        folder.intake.take(record(slot, bar(slot, 400.0)), heard)
    forming = bar_at(START + 30 * MINUTE, 100.0, closed=False)
    folder.intake.take(record(30, forming), heard)
    book = folder.book(SYMBOL)
    plan = folder.prompts.plan(book, "1m", "fast")
    assert plan.facts["close"] == 100.0
    assert plan.facts["atr"] == pytest.approx(0.25)
    assert heard.changes == [CancelReason.SPLIT]
    assert "move" not in dict(heard.kinds), "a price on the new scale is no move from one on the old"
    shown = "".join([*folder.prompts.text(plan)])
    assert "400.00" not in shown
    moved = bar_at(START + 30 * MINUTE, 103.0, closed=False)
    folder.intake.take(record(31, moved), heard)
    assert dict(heard.kinds)["move"] == 31


def test_a_split_told_late_leaves_prices_of_bars_after_it_as_they_are() -> None:
    folder, heard = Folder(USING, instruments=[instrument()]), Heard()
    for slot in range(12):
        folder.intake.take(record(slot, unsplit(slot, 10)), heard)
    publish(folder, split(START + 10 * MINUTE, 4.0), heard)
    folder.intake.take(record(12, bar_at(START + 12 * MINUTE, 102.0, closed=False)), heard)
    assert "move" not in dict(heard.kinds)
    assert max(folder.book(SYMBOL).bars["1m"].close) < 104


def test_a_slower_bar_that_forms_across_a_split_is_shown_on_the_new_scale() -> None:
    folder = Folder(USING, instruments=[instrument()], splits=[split(START + 32 * MINUTE, 4.0)])
    folder.feed([record(slot, bar(slot, 400.0)) for slot in range(32)])
    folder.feed([record(32, bar(6, 400.0, interval="5m", closed=False)), record(33, bar_at(START + 32 * MINUTE, 100.0, closed=False))])
    forming = folder.book(SYMBOL).bars["5m"].forming
    assert forming is not None
    assert forming.close == 100.0


def test_a_revision_of_features_alone_is_folded_and_cancels_what_rested_on_the_wrong_ones() -> None:
    folder, heard = Folder(USING, instruments=[instrument()]), Heard()
    folder.feed([record(slot, bar(slot)) for slot in range(5)])
    corrected = bar(4, revision=1).model_copy(update={"features": {"rsi": 50.0, "atr": 0.5}})
    assert folder.intake.take(record(5, corrected), heard) == "folded"
    assert folder.book(SYMBOL).bars["1m"].features["atr"] == 0.5
    assert heard.changes == [CancelReason.REVISED]
    assert folder.intake.take(record(6, corrected), heard) == "duplicate"


async def test_a_revision_of_an_older_bars_rsi_alone_changes_its_row_and_nothing_else() -> None:
    folder = Folder(USING, instruments=[instrument()])
    folder.feed([record(slot, bar(slot)) for slot in range(5)])
    features = dict(folder.book(SYMBOL).bars["1m"].features)
    before = await folder.prompt(SYMBOL)
    folder.feed([record(5, bar(2, revision=1).model_copy(update={"features": {"rsi": 70.0}}))])
    assert folder.book(SYMBOL).bars["1m"].features == features
    assert (await folder.prompt(SYMBOL)).hash != before.hash


def test_an_older_revision_cannot_change_a_bar_that_a_newer_one_confirmed() -> None:
    folder = Folder(USING, instruments=[instrument()])
    folder.feed([record(0, bar(0)), record(1, bar(0, revision=2))])
    taken = folder.intake.take(record(2, bar(0, 90.0, revision=1)), NullSink())
    assert isinstance(taken, Refused)
    assert taken.reason == "conflict"
