"""Positions: the tail shows the one held, and an exit of none is stopped where positions are reported."""

from __future__ import annotations

import pytest

from schemas import Action
from services.fusion.inputs.tables import Tables
from tests.unit.fusion import build
from tests.unit.fusion.build import SYMBOL, bar, split
from tests.unit.fusion.inputs.build import position, table_record, tombstone
from tests.unit.fusion.inputs.test_notes import LAST, folder, tail
from tests.unit.fusion.log import SYMBOLS, Folder


def held(*records: object) -> Tables:
    tables = Tables(build.settings())
    for one in records:
        assert tables.take(one) is None  # type: ignore[arg-type]
    return tables


def line_of(of: Folder) -> list[str]:
    return [line for line in tail(of).splitlines() if line.startswith("Position")]


def test_the_tail_shows_the_position_in_its_symbol_alone() -> None:
    of = folder()
    of.prompts.tables = held(table_record(0, position("short", 2.5)), table_record(1, position(symbol=SYMBOLS[1])))
    assert line_of(of) == ["Position held: short 2.5 at 99.50 USD. exit closes it, hold keeps it."]


@pytest.mark.parametrize("end", [tombstone(1), table_record(1, position(quantity=0.0))], ids=["tombstone", "quantity of 0"])
def test_a_position_that_has_ended_is_not_shown_and_leaves_nothing_in_the_as_of(end: object) -> None:
    of = folder()
    before = tail(of)
    of.prompts.tables = held(table_record(0, position()), end)
    assert tail(of) == before
    assert of.prompts.tables.as_of(SYMBOL) is None


def test_the_last_record_of_a_symbol_holds() -> None:
    of = folder()
    of.prompts.tables = held(table_record(0, position()), table_record(1, position("short", 40.0, price=101.0)))
    assert line_of(of) == ["Position held: short 40 at 101.00 USD. exit closes it, hold keeps it."]
    refs = of.prompts.tables.as_of(SYMBOL)
    assert refs is not None
    assert refs["positions"].offset == 1


def test_a_size_that_was_reported_before_a_split_is_not_shown_on_the_scale_after_it() -> None:
    of = Folder(build.settings(), splits=[split(bar(10).ts_open_ms, 2.0)])
    of.feed([build.record(slot, bar(slot, 100.0 if slot < 10 else 50.0)) for slot in range(20)])
    of.prompts.tables = held(table_record(0, position(ts_ms=bar(5).ts_close_ms)))
    assert line_of(of) == ["Position held: long, its size not reported since a split. exit closes it, hold keeps it."]
    of.prompts.tables = held(table_record(0, position(quantity=200.0, price=49.75, ts_ms=bar(10).ts_open_ms)))
    assert line_of(of) == ["Position held: long 200 at 49.75 USD. exit closes it, hold keeps it."]


@pytest.mark.parametrize(
    "bad",
    [
        b"{}",
        (table_record(1, position()).value or b"").replace(b"100", b"1e999"),
        table_record(1, position(ts_ms=LAST + 86_400_000)).value or b"",
    ],
    ids=["without fields", "infinite", "of tomorrow"],
)
def test_after_a_record_that_cannot_be_used_nobody_can_say_what_is_held(bad: bytes) -> None:
    of = folder()
    before = tail(of)
    of.prompts.tables = tables = held(table_record(0, position()), table_record(1, position(symbol=SYMBOLS[1])))
    assert tables.take(table_record(2, position())._replace(value=bad)) is not None
    assert tail(of) == before
    assert tables.as_of(SYMBOL) is None
    assert tables.rejection_of(SYMBOL, Action.EXIT, LAST) is None
    assert tables.rejection_of("OTHER.XNAS", Action.EXIT, LAST) is not None
    assert tables.as_of(SYMBOLS[1]) is not None
    assert tables.take(table_record(3, position(quantity=0.0))) is None
    assert tables.rejection_of(SYMBOL, Action.EXIT, LAST) is not None


@pytest.mark.parametrize("action", [Action.BUY, Action.SELL, Action.HOLD, Action.ABSTAIN])
def test_only_an_exit_needs_a_position(action: Action) -> None:
    tables = held(tombstone(0))
    assert tables.rejection_of(SYMBOL, action, LAST) is None


def test_an_exit_without_a_position_is_stopped_where_positions_are_reported() -> None:
    tables = held(table_record(0, position(symbol=SYMBOLS[1])))
    rejection = tables.rejection_of(SYMBOL, Action.EXIT, LAST)
    assert rejection is not None
    assert rejection.rule == "no_position"
    assert tables.rejection_of(SYMBOLS[1], Action.EXIT, LAST) is None


def test_an_exit_is_published_where_nobody_reports_positions() -> None:
    assert held().rejection_of(SYMBOL, Action.EXIT, LAST) is None


def test_a_topic_whose_records_were_all_compacted_away_still_reports_that_there_are_no_positions() -> None:
    tables = held()
    tables.begin({"demo.positions": 7})
    assert tables.rejection_of(SYMBOL, Action.EXIT, LAST) is not None
