"""Notes: which of them a prompt quotes, in what order, and when a blackout stops decisions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from copy import copy
from functools import cache

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas import DeadLetterReason, Note
from services.core.bus import Record
from services.fusion.inputs import notes as notes_module
from services.fusion.inputs.notes import Notes
from services.fusion.inputs.tables import Tables
from tests.unit.fusion import build
from tests.unit.fusion.build import MINUTE, START, SYMBOL, bar
from tests.unit.fusion.inputs.build import NOTES, note, table_record
from tests.unit.fusion.log import SYMBOLS, Folder, Logs

HOUR, DAY = 60 * MINUTE, 86_400_000
LAST = START + 20 * MINUTE


@cache
def _books() -> Folder:
    logs = Logs()
    for slot in range(20):
        logs.add(bar(slot))
    made = Folder(build.settings())
    made.feed(logs.market)
    return made


def folder(**fusion: object) -> Folder:
    """Return books of a few bars that end at LAST, without notes."""
    made = copy(_books())
    made.prompts = copy(made.prompts)
    made.prompts.tables = Tables(build.settings(**fusion))
    return made


def tail(of: Folder) -> str:
    return of.prompts.plan(of.book(SYMBOL), "1m", "fast").tail


def quoted_texts(of: Folder) -> list[str]:
    """Return the texts that the tail quotes, in order."""
    return [line.split('"')[1] for line in tail(of).splitlines() if line.startswith("- ") and '"' in line]


def take(of: Folder, *notes: object) -> None:
    assert of.prompts.tables is not None
    for number, one in enumerate(notes):
        assert of.prompts.tables.take(table_record(number, one)) is None  # type: ignore[arg-type]


def test_without_notes_a_prompt_is_what_it_is_without_the_input() -> None:
    bare = folder()
    before = tail(bare)
    bare.prompts.tables = None
    assert tail(bare) == before


def test_the_most_important_notes_come_first_and_the_newest_of_those() -> None:
    of = folder()
    take(
        of,
        note("old and grave", importance=5, ts_ms=LAST - HOUR),
        note("new and slight", importance=1, ts_ms=LAST),
        note("new and grave", importance=5, ts_ms=LAST - MINUTE),
        note("on all", symbol="*", importance=4, ts_ms=LAST),
        note("another's", symbol=SYMBOLS[1], importance=5, ts_ms=LAST),
    )
    assert quoted_texts(of) == ["new and grave", "old and grave", "on all", "new and slight"]


def test_a_note_that_is_too_old_at_the_last_close_is_not_shown() -> None:
    of = folder(notes_max_age_ms=HOUR)
    take(of, note("of an hour ago", ts_ms=LAST - HOUR), note("older", ts_ms=LAST - HOUR - 1))
    assert quoted_texts(of) == ["of an hour ago"]


def test_a_later_note_with_the_same_id_replaces_the_first_and_lifts_its_blackout() -> None:
    of = folder()
    span = (LAST, LAST + HOUR)
    take(of, note("rate decision", note_id="fomc", blackout=span), note("moved to tomorrow", note_id="fomc", ts_ms=START + 1))
    assert quoted_texts(of) == ["moved to tomorrow"]
    assert of.prompts.tables is not None
    assert of.prompts.tables.rejection(SYMBOL, LAST) is None


@given(count=st.integers(0, 12), budget=st.integers(0, 200), lengths=st.lists(st.integers(1, 495), min_size=12, max_size=12))
def test_quoted_notes_fit_the_budget_and_those_left_out_are_counted(count: int, budget: int, lengths: list[int]) -> None:
    of = folder(notes_max_tokens=budget)
    take(of, *(note("word " * (lengths[n] // 5) + "x", ts_ms=START + n) for n in range(count)))
    lines = [line for line in tail(of).splitlines() if line.startswith("- ")]
    shown = [line for line in lines if '"' in line]
    tokens = sum(int(build.tokenizer().encode(f"{line}\n").size) for line in shown)
    assert tokens <= budget
    left_out = count - len(shown)
    if budget:
        assert [line for line in lines if "not shown" in line] == (
            [f"- {left_out} more {'is' if left_out == 1 else 'are'} not shown"] * bool(left_out)
        )
    else:
        assert not lines


def test_a_budget_of_nothing_quotes_nothing_and_keeps_the_blackout() -> None:
    of = folder(notes_max_tokens=0)
    take(of, note("halt", blackout=(LAST, LAST + HOUR)))
    assert "Notes" not in tail(of)
    assert of.prompts.tables is not None
    rejection = of.prompts.tables.rejection(SYMBOL, LAST)
    assert rejection is not None
    assert rejection.rule == "blackout"


@pytest.mark.parametrize(
    ("symbol", "at_ms", "blocks"),
    [
        (SYMBOL, LAST - 1, False),
        (SYMBOL, LAST, True),
        (SYMBOL, LAST + HOUR - 1, True),
        (SYMBOL, LAST + HOUR, False),
        (SYMBOLS[1], LAST, False),
    ],
)
def test_a_blackout_stops_its_symbol_from_its_first_instant_to_before_its_last(symbol: str, at_ms: int, blocks: bool) -> None:  # noqa: FBT001
    tables = Tables(build.settings())
    tables.take(table_record(0, note(blackout=(LAST, LAST + HOUR))))
    assert (tables.rejection(symbol, at_ms) is not None) is blocks


def test_a_blackout_of_all_stops_every_symbol_and_says_who_announced_it_and_until_when() -> None:
    tables = Tables(build.settings())
    tables.take(table_record(0, note("rate decision", symbol="*", source="calendar", blackout=(LAST, LAST + HOUR))))
    rejection = tables.rejection("ANY.XNAS", LAST)
    assert rejection is not None
    assert rejection.detail == f"calendar announced a blackout of all symbols until {LAST + HOUR}: rate decision"


def announced(changes: Mapping[str, object]) -> Record:
    """Return a note with a blackout of an hour, with these changes to its fields."""
    given = table_record(0, note(blackout=(LAST, LAST + HOUR)))
    assert given.value is not None
    return given._replace(value=orjson.dumps({**orjson.loads(given.value), **changes}))


@pytest.mark.parametrize(
    "broken",
    [
        {"text": ""},
        {"text": "x" * 501},
        {"text": 7},
        {"text": None, "importance": 9},
        {"source": "Reuters News"},
        {"note_id": "x" * 1_000},
    ],
    ids=str,
)
def test_a_blackout_holds_though_the_rest_of_its_note_breaks_the_contract(broken: dict[str, object]) -> None:
    tables = Tables(build.settings())
    refused = tables.take(announced(broken))
    assert refused is not None
    assert refused.reason is DeadLetterReason.INVALID
    rejection = tables.rejection(SYMBOL, LAST)
    assert rejection is not None
    assert rejection.rule == "blackout"


@pytest.mark.parametrize(
    "broken", [{"blackout": {"from_ms": LAST, "until_ms": LAST}}, {"blackout": None}, {"symbol": "no symbol"}, {"ts_ms": "now"}], ids=str
)
def test_of_a_note_without_a_blackout_that_can_hold_nothing_counts(broken: dict[str, object]) -> None:
    made = folder()
    tables = made.prompts.tables
    assert tables is not None
    assert tables.take(announced({"text": "", **broken})) is not None
    assert tables.rejection(SYMBOL, LAST) is None
    assert not quoted_texts(made)


def test_many_notes_push_out_the_oldest_texts_and_no_blackout() -> None:
    tables = Tables(build.settings())
    tables.take(table_record(0, note("first", blackout=(LAST, LAST + HOUR))))
    for number in range(1, 400):
        tables.take(table_record(number, note(f"number {number}")))
    assert tables.rejection(SYMBOL, LAST) is not None
    notes = tables.of(Notes)
    assert sum(len(scope.notes) for scope in notes._scopes.values()) == 256


def test_notes_on_many_symbols_are_bounded_in_all_by_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes_module, "_KEPT_IN_ALL", 300)
    tables = Tables(build.settings())
    for number in range(1_000):
        tables.take(
            table_record(number, note(f"number {number}", symbol=f"S{number % 7}.XNAS", note_id="same" if number % 3 == 0 else None))
        )
    scopes = tables.of(Notes)._scopes.values()
    held = sorted(one.offset for scope in scopes for one in scope.notes.values())
    assert len(held) == 300
    last_of_an_id = {number % 7: number for number in range(0, 1_000, 3)}
    kept = [number for number in range(1_000) if number % 3 or number in last_of_an_id.values()]
    assert held == kept[-300:]


@pytest.mark.parametrize("word", ["guidance {} raised once more by the board of directors; ", "\U0001f680", "\ufdfa"])
def test_as_many_long_notes_as_are_held_do_not_fail_the_decision(word: str) -> None:
    of = folder()
    texts = [(f"{number} " + word.format(number) * 500)[:500] for number in range(512)]
    take(of, *(note(text, symbol=symbol) for text, symbol in zip(texts, itertools.cycle((SYMBOL, "*")), strict=False)))
    assert tail(of).count("- 512 more are not shown\n") == 1


def test_short_notes_are_shown_after_some_that_do_not_fit() -> None:
    of = folder()
    take(of, *(note("\U0001f680" * 400, importance=5) for _ in range(15)), note("short"))
    assert quoted_texts(of) == ["short"]


def test_blackouts_are_looked_through_when_one_has_ended_and_not_for_every_note(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    ends = notes_module._until_ms

    def counted(one: Note) -> int:
        looked.append(1)
        return ends(one)

    monkeypatch.setattr(notes_module, "_until_ms", counted)
    tables = Tables(build.settings())
    for number in range(400):
        tables.take(table_record(number, note(note_id=f"n{number}", blackout=(LAST, LAST + HOUR + number))))
    assert len(looked) < 400
    tables.take(table_record(400, note(note_id="n7", blackout=(LAST, LAST + 2 * HOUR))))
    tables.take(table_record(401, note(note_id="last", ts_ms=LAST + HOUR + 398)))
    [scope] = tables.of(Notes)._scopes.values()
    assert sorted(key[1] for key in scope.blackouts) == ["n399", "n7"]
    assert tables.rejection(SYMBOL, LAST + 2 * HOUR - 1) is not None
    assert tables.rejection(SYMBOL, LAST + 2 * HOUR) is None


def test_the_next_blackout_is_known_ahead() -> None:
    tables = Tables(build.settings())
    tables.take(table_record(0, note(blackout=(LAST + HOUR, LAST + 2 * HOUR))))
    tables.take(table_record(1, note(symbol="*", blackout=(LAST + MINUTE, LAST + HOUR))))
    assert tables.next_rejection_ms(SYMBOL, LAST) == LAST + MINUTE
    assert tables.next_rejection_ms(SYMBOL, LAST + MINUTE) == LAST + HOUR
    assert tables.next_rejection_ms(SYMBOL, LAST + 3 * HOUR) is None


@pytest.mark.parametrize(
    "span", [(LAST, LAST), (LAST, LAST - 1), (START + 60 * DAY, START + 60 * DAY + 1)], ids=["empty", "backwards", "too far ahead"]
)
def test_a_blackout_that_cannot_hold_is_refused(span: tuple[int, int]) -> None:
    with pytest.raises(ValidationError, match=r"blackout\.until_ms"):
        note(blackout=span)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"not json", DeadLetterReason.MALFORMED),
        (None, DeadLetterReason.EMPTY),
        (note().encode().replace(b'"importance":3', b'"importance":9'), DeadLetterReason.INVALID),
        (note(symbol="*").encode(), DeadLetterReason.KEY_MISMATCH),
        (note(ts_ms=START + HOUR).encode(), DeadLetterReason.FUTURE),
        (note().encode().replace(b'"demo"', b'"live"'), DeadLetterReason.WRONG_RUN_MODE),
    ],
)
def test_a_note_that_cannot_be_used_is_refused_with_its_reason(value: bytes | None, reason: DeadLetterReason) -> None:
    tables = Tables(build.settings())
    refused = tables.take(table_record(0, note())._replace(value=value))
    assert refused is not None
    assert refused.reason is reason
    assert tables.as_of(SYMBOL) is None


def test_as_of_is_the_last_note_on_the_symbol_or_on_all() -> None:
    tables = Tables(build.settings())
    assert tables.as_of(SYMBOL) is None
    for number, symbol in enumerate((SYMBOL, "*", SYMBOLS[1])):
        tables.take(table_record(number, note(symbol=symbol)))
    refs = [tables.as_of(symbol) for symbol in (SYMBOL, SYMBOLS[1], "OTHER.XNAS")]
    assert [None if ref is None else (ref["notes"].topic, ref["notes"].offset) for ref in refs] == [(NOTES, 1), (NOTES, 2), (NOTES, 1)]
