"""From the topics as from a file: as much is read back as the prompts need, also where the first guess was too little."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas import RunMode, Topic, topic_name
from services.core.bus import Bus
from services.core.bus.memory import MemoryBus
from services.core.bus.topic_reader import TimeRange
from services.core.clock import VirtualClock
from services.core.topic_admin import ensure_topics
from services.fusion.state.books import Books
from services.replay.audit_trail import AuditTrail, read_trail_topic
from services.replay.export_log import export_for_trail
from services.replay.log_source import FileLog, LogSource, TopicLog
from services.replay.prompt_rebuilder import PromptRebuilder
from services.replay.verify_audit import AuditVerifier, VerificationResult
from tests.unit.fusion.build import MINUTE, MODE
from tests.unit.fusion.log import TOKENIZER, random_logs
from tests.unit.replay.build import SMALL, Decided, decide


@pytest.fixture
async def decided() -> Decided:
    rng = random.Random(7)  # noqa: S311
    return await decide(rng, random_logs(rng, 60))


@pytest.fixture
async def bus(decided: Decided) -> AsyncIterator[Bus]:
    """Yield a bus that holds log and audit, each record at its time."""
    made = MemoryBus(VirtualClock())
    as_told = {topic: {"message.timestamp.type": "CreateTime"} for topic in Topic}
    await ensure_topics(await made.admin(), MODE, 1, overrides=as_told)
    producer = await made.producer(client_id="test")
    for one in (*decided.tables, *decided.inputs):
        await producer.send(one.topic, key=one.key, value=one.value, timestamp_ms=one.timestamp_ms)
    for audit in decided.audits:
        await producer.send(
            topic_name(Topic.SIGNAL_AUDIT, MODE), key=audit.symbol.encode(), value=audit.encode(), timestamp_ms=audit.ts_done_ms
        )
    yield made
    await made.close()


async def _verdict(trail: AuditTrail, inputs: LogSource) -> VerificationResult:
    return await AuditVerifier([PromptRebuilder(SMALL, TOKENIZER)], inputs, lambda _: None).verify(trail)


@pytest.mark.parametrize("guessed_minutes", [None, 1, 10_000])
async def test_every_prompt_is_built_again_however_far_back_the_first_look_reaches(
    bus: Bus, decided: Decided, monkeypatch: pytest.MonkeyPatch, guessed_minutes: int | None
) -> None:
    if guessed_minutes is not None:
        monkeypatch.setattr(Books, "oldest_shown_ms", lambda _, now_ms: max(0, now_ms - guessed_minutes * MINUTE))
    late = decided.audits[len(decided.audits) // 2 :]
    since_ms = min(audit.ts_done_ms for audit in late)
    trail = await read_trail_topic(bus, RunMode.DEMO, TimeRange(since_ms))
    inputs = TopicLog(bus, SMALL)
    await inputs.open()
    verdict = await _verdict(trail, inputs)
    await inputs.close()
    assert verdict.matched == len(trail.lines) >= len(late)
    assert verdict.all_match


async def test_what_is_exported_of_a_span_is_enough_to_verify_it(bus: Bus, decided: Decided, tmp_path: Path) -> None:
    middle_ms = decided.audits[len(decided.audits) // 2].ts_done_ms
    trail = await read_trail_topic(bus, RunMode.DEMO, TimeRange(middle_ms, middle_ms + 15 * MINUTE))
    inputs = TopicLog(bus, SMALL)
    await inputs.open()
    count = await export_for_trail(trail, inputs, tmp_path / "some-log.jsonl.gz", lambda _, __: None)
    await inputs.close()
    assert 0 < len(trail.lines) < len(decided.audits)
    assert count > 0
    verdict = await _verdict(trail, FileLog(tmp_path / "some-log.jsonl.gz", None))
    assert verdict.matched == len(trail.lines)
    assert verdict.all_match
