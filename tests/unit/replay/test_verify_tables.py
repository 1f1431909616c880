"""Prompts with notes and positions are rebuilt from the log as of the offsets that the audit names."""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.bus import Record
from tests.unit.fusion.build import MINUTE, START
from tests.unit.fusion.inputs.build import NOTES, POSITIONS, note, position, table_record, tombstone
from tests.unit.fusion.log import SYMBOLS, random_logs
from tests.unit.replay.build import Decided, decide, moved, verified


def random_tables(rng: random.Random, count: int) -> list[Record]:
    """Return notes, replaced ones, old ones and blackouts, and positions that come, change and go."""
    records: list[Record] = []
    offsets = {NOTES: 0, POSITIONS: 0}
    for number in range(count):
        symbol, ts_ms = rng.choice([*SYMBOLS, "*"]), START + rng.randint(-2 * 1440, number) * MINUTE
        if symbol == "*" or rng.random() < 0.6:
            span = (ts_ms, ts_ms + MINUTE) if rng.random() < 0.2 else None
            note_id = rng.choice([None, "a", "b"])
            one = note(f"text {number}", symbol=symbol, ts_ms=ts_ms, importance=rng.randint(1, 5), note_id=note_id, blackout=span)
            records.append(table_record(offsets[NOTES], one, START + number * MINUTE))
        elif rng.random() < 0.3:
            records.append(tombstone(offsets[POSITIONS], symbol))
        else:
            held = position(rng.choice(["long", "short"]), rng.choice([0.0, 1.0, 250.0]), symbol=symbol, ts_ms=ts_ms)
            records.append(table_record(offsets[POSITIONS], held, START + number * MINUTE))
        offsets[records[-1].topic] += 1
    return records


async def decided_on(seed: int, slots: int = 40) -> Decided:
    rng = random.Random(seed)  # noqa: S311
    return await decide(rng, random_logs(rng, slots), tables=random_tables(rng, 40))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_prompt_with_notes_and_positions_is_built_again_to_the_hash(seed: int) -> None:
    async def holds() -> None:
        decided = await decided_on(seed)
        with tempfile.TemporaryDirectory() as name:
            decided.write(Path(name))
            verdict = await verified(Path(name))
        assert verdict.differing == []
        assert verdict.matched == len(decided.audits)
        assert verdict.all_match

    asyncio.run(holds())


@pytest.fixture
async def honest() -> Decided:
    return await decided_on(5)


async def test_an_as_of_of_another_note_is_found(tmp_path: Path, honest: Decided) -> None:
    number, audit = [(n, one) for n, one in enumerate(honest.audits) if one.as_of and one.as_of.tables and "notes" in one.as_of.tables][-1]
    assert audit.as_of is not None
    assert audit.as_of.tables is not None
    tables = audit.as_of.tables | {"notes": moved(audit.as_of.tables["notes"], -1)}
    as_of = audit.as_of.model_copy(update={"tables": tables})
    honest.audits[number] = type(audit).decode(audit.model_copy(update={"as_of": as_of}).encode())
    honest.write(tmp_path)
    verdict = await verified(tmp_path)
    assert len(verdict.differing) == 1
    assert "as_of" in verdict.differing[0]


async def test_a_note_that_was_changed_in_the_log_is_found(tmp_path: Path, honest: Decided) -> None:
    changed = [one._replace(value=(one.value or b"").replace(b'"text ', b'"word ')) for one in honest.tables]
    assert changed != honest.tables
    honest.tables = changed
    honest.write(tmp_path)
    verdict = await verified(tmp_path)
    assert verdict.differing
    assert all("prompt_hash" in sentence for sentence in verdict.differing)


async def test_a_position_that_was_compacted_away_is_out_of_reach_and_not_different(tmp_path: Path, honest: Decided) -> None:
    rests = [one for one in honest.audits if one.as_of and one.as_of.tables and "positions" in one.as_of.tables]
    assert rests
    honest.tables = [one for one in honest.tables if one.topic != POSITIONS]
    honest.write(tmp_path)
    verdict = await verified(tmp_path)
    assert verdict.differing == []
    assert verdict.out_of_reach == len(rests)


async def test_a_note_that_a_complete_log_lacks_is_a_difference(tmp_path: Path, honest: Decided) -> None:
    honest.tables = [one for one in honest.tables if one.topic != NOTES]
    honest.write(tmp_path)
    verdict = await verified(tmp_path)
    assert any("as_of.notes names" in sentence for sentence in verdict.differing)
