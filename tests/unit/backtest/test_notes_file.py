"""Notes of a file are played with candles when they were written, and what is no note is named with its line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from schemas import Topic, topic_name
from services.backtest.backtest_plan import CandleData, plan_of_candles, prepare
from services.backtest.checkpoint import AUDIT, LOG
from services.backtest.feed import MODE
from services.backtest.notes_file import read_notes
from services.core.settings import SettingsError
from services.replay.audit_trail import read_trail_file
from services.replay.log_source import FileLog
from services.replay.prompt_rebuilder import PromptRebuilder
from services.replay.verify_audit import AuditVerifier
from tests.unit.backtest.build import OPTIONS, SYMBOLS, run, walk
from tests.unit.fusion import build
from tests.unit.fusion.build import MINUTE, START, instrument

NOTES = topic_name(Topic.NOTES, MODE)


def written(tmp_path: Path, *notes: dict[str, object]) -> Path:
    file = tmp_path / "notes.jsonl"
    file.write_text("".join(f"{json.dumps({'source': 'desk', **note})}\n\n" for note in notes))
    return file


def data(bars: int = 12) -> CandleData:
    instruments = [instrument(symbol).model_copy(update={"run_mode": MODE}) for symbol in SYMBOLS[:1]]
    return CandleData("here", b"", walk(bars, symbols=SYMBOLS[:1]), instruments)


def three(tmp_path: Path) -> Path:
    """Return notes from long before the first bar, from between two bars, at a bar's close and from after the last bar."""
    return written(
        tmp_path,
        {"symbol": "*", "ts_ms": START + 5 * MINUTE, "text": "at a close"},
        {"symbol": SYMBOLS[0], "ts_ms": START + 3 * MINUTE + 20_000, "text": "between", "importance": 5},
        {"symbol": "*", "ts_ms": START - 400 * 1440 * MINUTE, "text": "long before"},
        {"symbol": "*", "ts_ms": START + 900 * MINUTE, "text": "after the last"},
    )


def test_each_note_is_played_when_it_was_written(tmp_path: Path) -> None:
    plan = plan_of_candles(dataclasses.replace(OPTIONS, notes=str(three(tmp_path))), data())
    played = [(step.at_ms, json.loads(fed.value or b"")["text"]) for step in plan.feed.steps() for fed in step.fed if fed.topic == NOTES]
    first_ms = next(plan.feed.steps()).at_ms
    assert played == [(first_ms, "long before"), (START + 3 * MINUTE + 20_000, "between"), (START + 5 * MINUTE, "at a close")]
    times = [step.at_ms for step in plan.feed.steps()]
    assert times == sorted(set(times))
    assert sum(step.size for step in plan.feed.steps()) == plan.feed.total


async def test_decisions_rest_on_the_notes_written_before_them_and_verify(tmp_path: Path) -> None:
    plan = plan_of_candles(dataclasses.replace(OPTIONS, notes=str(three(tmp_path))), data(60))
    ran = await run(plan, tmp_path / "run")
    assert ran.ended
    last = {one.ts_done_ms: (one.as_of.tables or {}) for one in ran.audits if one.as_of is not None}
    assert {at_ms: tables["notes"].offset for at_ms, tables in last.items()} == {
        at_ms: 0 if at_ms < START + 4 * MINUTE else 1 if at_ms < START + 5 * MINUTE else 2 for at_ms in last
    }
    inputs = FileLog(tmp_path / "run" / LOG, None)
    verdict = await AuditVerifier([PromptRebuilder(inputs.settings, build.tokenizer())], inputs, lambda _: None).verify(
        read_trail_file(tmp_path / "run" / AUDIT)
    )
    assert verdict.all_match
    assert verdict.matched > 0


async def test_a_run_with_notes_that_was_stopped_and_resumed_gives_the_same_bytes(tmp_path: Path) -> None:
    plan = plan_of_candles(dataclasses.replace(OPTIONS, notes=str(three(tmp_path))), data())
    whole = await run(plan, tmp_path / "whole")
    count = 0

    def wanted() -> bool:
        nonlocal count
        count += 1
        return count < 6

    part = await run(plan, tmp_path / "part", wanted)
    assert not part.ended
    assert (await run(plan, tmp_path / "part")).bytes() == whole.bytes()


def test_other_notes_make_another_fingerprint(tmp_path: Path) -> None:
    of = {plan_of_candles(OPTIONS, data()).fingerprint}
    for text in ("one", "another"):
        file = written(tmp_path, {"symbol": "*", "ts_ms": START, "text": text})
        of.add(plan_of_candles(dataclasses.replace(OPTIONS, notes=str(file)), data()).fingerprint)
    assert len(of) == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no JSON", "line 2: not JSON"),
        ("[]", "line 2: expected a JSON object"),
        ('{"symbol": "*", "source": "desk", "text": "x"}', "line 2: ts_ms: Field required"),
        ('{"symbol": "lower", "source": "desk", "ts_ms": 1, "text": "x"}', "line 2: symbol"),
    ],
)
def test_a_line_that_is_no_note_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "notes.jsonl"
    file.write_text(f"\n{line}\n")
    with pytest.raises(SettingsError, match=said):
        read_notes(file)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": ("log.jsonl",)}, "a log has its own notes"),
        ({"data": ("demo",), "blind": True}, "exclude each other"),
        ({"data": ("demo",), "notes": "/absent.jsonl", "intervals": None}, r"/absent\.jsonl cannot be read"),
    ],
)
async def test_notes_that_cannot_be_played_are_refused(changes: dict[str, object], said: str) -> None:
    values = {**{name: getattr(OPTIONS, name) for name in type(OPTIONS).__slots__}, "notes": "notes.jsonl", **changes}
    with pytest.raises(SettingsError, match=said):
        await prepare(type(OPTIONS)(**values))
