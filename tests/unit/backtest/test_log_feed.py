"""A log is played at its append times where it was written as its market went, and at its bars' ends where it was not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from schemas import Message, Topic, topic_name
from services.backtest.backtest_settings import backtest_settings
from services.backtest.checkpoint import AUDIT, LOG
from services.backtest.feed import MODE
from services.backtest.log_feed import LogFeed
from services.core.bus import Record
from services.replay.audit_trail import read_trail_file
from services.replay.log_source import FileLog, ReferenceData
from services.replay.prompt_rebuilder import PromptRebuilder
from services.replay.verify_audit import AuditVerifier
from tests.unit.backtest.build import OPTIONS, planned, run
from tests.unit.fusion import build
from tests.unit.fusion.build import MARKET, MINUTE, START, SYMBOL, VISION, bar, seen
from tests.unit.fusion.inputs.build import note, position, table_record, tombstone
from tests.unit.replay.build import table_records


def feed(records: Sequence[Record], since_ms: int | None = None) -> LogFeed:
    reference = ReferenceData()
    for one in table_records():
        reference.take(one, build.MODE)
    return LogFeed("log", build.MODE, reference, records, "1m", since_ms)


def appended(*messages: tuple[int, Message]) -> list[Record]:
    """Return messages as records of their topics, each appended at the time beside it."""
    offsets = {MARKET: 0, VISION: 0}
    records = []
    for at_ms, message in messages:
        topic = VISION if hasattr(message, "window_end_ms") else MARKET
        records.append(build.record(offsets[topic], message, topic=topic, timestamp_ms=at_ms))
        offsets[topic] += 1
    return records


def test_a_log_of_its_time_is_played_at_its_append_times() -> None:
    end_ms = START + MINUTE
    records = appended(
        (end_ms + 40, bar(0)), (end_ms + 130, seen(end_ms)), (end_ms + 20_000, bar(1, closed=False)), (end_ms + MINUTE, bar(1))
    )
    steps = list(feed(records).steps())
    assert [step.at_ms - end_ms for step in steps] == [40, 130, 20_000, MINUTE]
    assert [len(step.closed) for step in steps] == [1, 0, 0, 1]


def test_recorded_data_are_played_at_their_ends_and_what_was_forming_with_the_record_before_it() -> None:
    late = START + 10**9
    records = appended(
        (late, bar(0)),
        (late + 1, bar(0, interval="5m", closed=False)),
        (late + 2, bar(1, closed=False)),
        (late + 3, bar(1)),
        (late + 9, seen(START + MINUTE)),
    )
    played = feed(records)
    steps = list(played.steps())
    assert [step.at_ms - START for step in steps] == [MINUTE, 2 * MINUTE]
    assert [len(step.fed) for step in steps] == [3, 1]
    assert [fed.topic for fed in steps[0].fed] == [topic_name(Topic.MARKET_FEATURES, MODE)] * 2 + [topic_name(Topic.VISION_FEATURES, MODE)]
    assert sum(played.left_out.values()) == 1


def test_what_was_appended_before_the_time_asked_for_is_history() -> None:
    records = appended(*((START + (n + 1) * MINUTE + 40, bar(n)) for n in range(4)))
    assert [step.history for step in feed(records, START + 3 * MINUTE).steps()] == [True, True, False, False]


def test_a_record_that_cannot_be_read_is_played_as_it_is() -> None:
    records = [*appended((START + MINUTE + 40, bar(0))), Record(MARKET, 0, 1, START + MINUTE + 90, SYMBOL.encode(), b"not a bar")]
    assert [step.fed[0].value for step in feed(records).steps()][1] == b"not a bar"


async def test_a_log_becomes_signals_and_outcomes(tmp_path: Path) -> None:
    records = appended(*((START + (n + 1) * MINUTE + 40, bar(n, 100.0 + n % 7)) for n in range(30)))
    played = feed(records)
    ran = await run(planned(played, backtest_settings(OPTIONS, ["1m"], [], vision=False)), tmp_path)
    assert ran.ended
    assert len(ran.audits) == 30
    assert {audit.trigger.ts_ms for audit in ran.audits} == {record.timestamp_ms for record in records}


def noted_feed() -> LogFeed:
    records = appended(*((START + (n + 1) * MINUTE + 40, bar(n, 100.0 + n % 7)) for n in range(12)))
    played = feed(records)
    written_ms = START + 5 * MINUTE + 40
    tables = [
        table_record(0, note("guidance raised", ts_ms=written_ms), written_ms),
        table_record(0, position(ts_ms=written_ms), written_ms),
        tombstone(1)._replace(timestamp_ms=START + 8 * MINUTE),
        table_record(1, note("too late for any bar", ts_ms=START + 60 * MINUTE)),
    ]
    for one in tables:
        played.reference.take(one, build.MODE)
    return played


async def test_notes_and_positions_of_a_log_are_known_from_their_instant_on_and_the_run_can_be_verified(tmp_path: Path) -> None:
    ran = await run(planned(noted_feed(), backtest_settings(OPTIONS, ["1m"], [], vision=False)), tmp_path)
    assert ran.ended
    refs = [one.as_of.tables if one.as_of is not None else None for one in ran.audits]
    assert [sorted(one or ()) for one in refs] == [*[[]] * 4, *[["notes", "positions"]] * 3, *[["notes"]] * 5]
    inputs = FileLog(tmp_path / LOG, None)
    verdict = await AuditVerifier([PromptRebuilder(inputs.settings, build.tokenizer())], inputs, lambda _: None).verify(
        read_trail_file(tmp_path / AUDIT)
    )
    assert verdict.all_match
    assert verdict.matched == sum(one.prompt_hash is not None for one in ran.audits) > 0


def test_another_note_makes_another_fingerprint() -> None:
    assert noted_feed().fingerprint != feed(noted_feed().records).fingerprint
