"""Every prompt of an honest trail is built again to the hash; whatever is changed, in the audit or in the log, is found and named."""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import AuditRecord, MarketFeatures, Outcome
from services.core.fusion_settings import FusionSettings
from services.fusion.prompt.version import version_of
from services.strategy.folder import shipped
from tests.unit.fusion.build import MARKET, MINUTE, START, SYMBOL, bar, split
from tests.unit.fusion.log import Logs, random_logs
from tests.unit.replay.build import AUDIT, LOG, SMALL, Decided, decide, moved, verified


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_prompt_of_a_random_log_is_built_again_to_the_hash(seed: int) -> None:
    async def holds() -> None:
        rng = random.Random(seed)  # noqa: S311
        decided = await decide(rng, random_logs(rng, rng.randint(20, 60)))
        with tempfile.TemporaryDirectory() as name:
            decided.write(Path(name))
            verdict = await verified(Path(name))
        assert verdict.differing == []
        assert verdict.matched == len(decided.audits)
        assert verdict.all_match

    asyncio.run(holds())


@pytest.fixture
async def honest() -> Decided:
    rng = random.Random(5)  # noqa: S311
    return await decide(rng, random_logs(rng, 40))


async def _after(folder: Path, honest: Decided, number: int, **changes: object) -> list[str]:
    """Write an audit in which one record was changed, its checksum made to fit, and return what is said to differ."""
    honest.audits[number] = AuditRecord.decode(honest.audits[number].model_copy(update=changes).encode())
    honest.write(folder)
    verdict = await verified(folder)
    assert verdict.damaged == []
    assert not verdict.all_match
    assert verdict.matched == len(honest.audits) - 1
    return verdict.differing


async def test_a_changed_hash_is_found_and_its_record_named(tmp_path: Path, honest: Decided) -> None:
    audit = honest.audits[7]
    differing = await _after(tmp_path, honest, 7, prompt_hash="0" * 64)
    assert len(differing) == 1
    assert differing[0].startswith(f"{AUDIT}, line 8: ")
    assert str(audit.trigger_id) in differing[0]
    assert "prompt_hash is 000000" in differing[0]


async def test_an_as_of_that_was_moved_is_found_whichever_input_it_is_of(tmp_path: Path, honest: Decided) -> None:
    as_of = honest.audits[9].as_of
    assert as_of is not None
    differing = await _after(tmp_path, honest, 9, as_of=as_of.model_copy(update={"market": moved(as_of.market, 1)}))
    assert len(differing) == 1
    assert "as_of.market" in differing[0]
    honest.audits[9] = honest.audits[9].model_copy(update={"as_of": as_of})
    seen = next(number for number, audit in enumerate(honest.audits) if audit.as_of is not None and audit.as_of.vision is not None)
    as_of = honest.audits[seen].as_of
    assert as_of is not None
    differing = await _after(tmp_path, honest, seen, as_of=as_of.model_copy(update={"vision": None}))
    assert "prompt_hash" in differing[0]


async def test_a_trigger_that_belongs_to_another_record_is_found(tmp_path: Path, honest: Decided) -> None:
    differing = await _after(tmp_path, honest, 3, trigger_kind="deep")
    assert len(differing) == 1
    assert "trigger_id is not that of 'deep'" in differing[0]


@settings(max_examples=12, deadline=None)
@given(line=st.integers(0, 9), place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_bit_that_flips_in_one_line_of_the_audit_is_found_and_the_line_named(line: int, place: int, bit: int) -> None:
    async def found() -> None:
        rng = random.Random(11)  # noqa: S311
        decided = await decide(rng, random_logs(rng, 20))
        with tempfile.TemporaryDirectory() as name:
            decided.write(Path(name))
            lines = (Path(name) / AUDIT).read_bytes().splitlines()
            flipped = bytearray(lines[line])
            flipped[place % len(flipped)] ^= 1 << bit
            if b"\n" in flipped or b"\r" in flipped or orjson_equal(bytes(flipped), lines[line]):
                return
            (Path(name) / AUDIT).write_bytes(b"\n".join([*lines[:line], bytes(flipped), *lines[line + 1 :]]) + b"\n")
            verdict = await verified(Path(name))
        assert [sentence.partition(" ")[0] for sentence in verdict.damaged] == [f"{AUDIT},"]
        assert f"line {line + 1}" in verdict.damaged[0]
        assert not verdict.all_match

    asyncio.run(found())


def orjson_equal(one: bytes, other: bytes) -> bool:
    try:
        return bool(orjson.loads(one) == orjson.loads(other))
    except orjson.JSONDecodeError:
        return False


async def test_a_byte_of_the_log_is_found_by_its_line_and_by_the_prompts_that_show_it(tmp_path: Path, honest: Decided) -> None:
    honest.write(tmp_path)
    lines = (tmp_path / LOG).read_bytes().splitlines()
    as_of = honest.audits[-1].as_of
    assert as_of is not None
    number = next(n for n, line in enumerate(lines) if n and f'"offset":{as_of.market.offset},'.encode() in line and b"market" in line)
    lines[number] = lines[number].replace(b'close\\":', b'close\\":1', 1).replace(b'high\\":', b'high\\":9', 1)
    (tmp_path / LOG).write_bytes(b"\n".join(lines) + b"\n")
    verdict = await verified(tmp_path)
    assert len(verdict.damaged) == 1
    assert verdict.damaged[0].startswith(f"{LOG}, line {number + 1}: '{MARKET}'[0] offset {as_of.market.offset} is damaged")
    assert any(str(honest.audits[-1].trigger_id) in sentence for sentence in verdict.differing)


async def test_a_bar_of_the_log_that_was_changed_with_its_checksum_is_found_by_the_prompts_that_show_it(
    tmp_path: Path, honest: Decided
) -> None:
    as_of = honest.audits[-1].as_of
    assert as_of is not None
    inputs = list(honest.inputs)
    at = next(n for n, record in enumerate(inputs) if (record.topic, record.offset) == (MARKET, as_of.market.offset))
    told = MarketFeatures.decode(inputs[at].value or b"")
    prices = {name: getattr(told, name) * 1.01 for name in ("open", "high", "low", "close")}
    inputs[at] = inputs[at]._replace(value=told.model_copy(update=prices).encode())
    honest.write(tmp_path, inputs=inputs)
    verdict = await verified(tmp_path)
    assert verdict.damaged == []
    assert any(str(honest.audits[-1].trigger_id) in sentence for sentence in verdict.differing)


@pytest.mark.parametrize("log_id", [SMALL.fusion.log_id, "another"])
async def test_another_configuration_is_said_to_be_one_and_no_record_is_called_wrong(tmp_path: Path, honest: Decided, log_id: str) -> None:
    honest.write(tmp_path)
    changes = {"window_bars": 6, "log_id": log_id}
    other = SMALL.model_copy(update={"fusion": FusionSettings(**{**SMALL.fusion.model_dump(), **changes})})
    verdict = await verified(tmp_path, other)
    assert verdict.differing == []
    assert sum(verdict.other_settings.values()) == len(honest.audits)
    assert all(made.startswith(honest.audits[0].config_version) for made in verdict.other_settings)
    assert not verdict.all_match


async def test_an_audit_of_another_strategy_is_told_by_its_name_and_one_of_its_own_matches(tmp_path: Path) -> None:
    words = shipped().instructions.replace("systematic", "careful")
    own = shipped().model_copy(update={"name": "careful", "instructions": words})
    careful = SMALL.model_copy(update={"fusion": SMALL.fusion.model_copy(update={"strategy": own})})
    rng = random.Random(11)  # noqa: S311
    decided = await decide(rng, random_logs(rng, 20), careful)
    decided.write(tmp_path)
    assert (await verified(tmp_path)).all_match
    assert {audit.prompt_version for audit in decided.audits} == {version_of(own)}
    verdict = await verified(tmp_path, SMALL)
    assert (verdict.differing, verdict.matched) == ([], 0)
    assert [made.endswith(f", prompt {version_of(own)}") for made in verdict.other_settings] == [True]


async def test_one_other_word_changes_the_versions_and_hashes_of_decisions_and_nothing_else() -> None:
    words = shipped().instructions.replace("systematic", "careful")
    own = SMALL.fusion.model_copy(update={"strategy": shipped().model_copy(update={"instructions": words})})
    sides = []
    for using in (SMALL, SMALL.model_copy(update={"fusion": own})):
        rng = random.Random(11)  # noqa: S311
        sides.append((await decide(rng, random_logs(rng, 20), using)).audits)
    assert len(sides[0]) > 0
    for one, other in zip(*sides, strict=True):
        values, others = one.model_dump(), other.model_dump()
        changed = {key for key, value in values.items() if value != others[key]}
        assert changed - {"prompt_tokens"} == {"prompt_version", "config_version", "prompt_hash", "epoch"}


async def test_another_log_under_the_same_configuration_is_named(tmp_path: Path, honest: Decided) -> None:
    honest.write(tmp_path)
    other = SMALL.model_copy(update={"fusion": SMALL.fusion.model_copy(update={"log_id": "another"})})
    verdict = await verified(tmp_path, other)
    assert len(verdict.differing) == len(honest.audits)
    assert all("in the log 'another' (fusion.log_id)" in sentence for sentence in verdict.differing)


async def test_what_rests_on_records_before_the_log_begins_is_out_of_reach_and_not_wrong(tmp_path: Path, honest: Decided) -> None:
    middle = honest.inputs[len([one for one in honest.inputs if one.topic == MARKET]) // 2].offset
    honest.write(tmp_path, whole=False, inputs=[one for one in honest.inputs if one.topic != MARKET or one.offset >= middle])
    verdict = await verified(tmp_path)
    assert verdict.differing == []
    assert verdict.out_of_reach > 0
    assert verdict.out_of_reach + verdict.matched == len(honest.audits)


async def test_triggers_that_were_not_asked_are_counted_by_their_outcome(tmp_path: Path, honest: Decided) -> None:
    bare = dict.fromkeys(("prompt_hash", "prompt_version", "epoch", "prompt_tokens", "as_of", "vision", "answer", "signal_id"))
    honest.audits[2] = honest.audits[2].model_copy(update={**bare, "outcome": Outcome.CONFLATED, "reason": "newer_trigger"})
    honest.write(tmp_path)
    verdict = await verified(tmp_path)
    assert verdict.unasked == {"conflated": 1}
    assert verdict.all_match


def _steady(bars: int, split_at: int) -> Logs:
    logs = Logs()
    for slot in range(bars):
        logs.add(bar(slot, 100.0 + slot % 3 if slot < split_at else 50.0 + slot % 3 / 2))
    return logs


@pytest.mark.parametrize("told_after_bars", [5, 14])
async def test_prompts_around_a_split_are_built_again_also_when_it_was_told_late(tmp_path: Path, told_after_bars: int) -> None:
    told_ms = START + told_after_bars * MINUTE + 60
    event = split(START + 10 * MINUTE, 2.0, SYMBOL)
    decided = await decide(random.Random(1), _steady(40, 10), SMALL, [(told_ms, event)])  # noqa: S311
    decided.write(tmp_path)
    verdict = await verified(tmp_path)
    assert verdict.differing == []
    assert verdict.matched == len(decided.audits) > 3
