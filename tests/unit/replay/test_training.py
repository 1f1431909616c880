"""Training data: the prompts that models saw, what the market made of their answers, and no outcome of the test in the training part."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Action, AsOf, AuditRecord, ExitReason, Outcome, SignalOutcome
from services.core.errors import ServiceError
from services.fusion.decide.answer import AnswerReader
from services.replay.replay_command import Source
from services.replay.training_command import TrainingRequest, export_training
from services.replay.training_samples import by_prompt, pairs_of, samples_of, split_at, split_by_time
from tests.unit.backtest.build import plan, run, walk
from tests.unit.fusion.build import MINUTE, MODE, START, SYMBOL, ref

BUY = '{"action":"buy","conviction":62,"horizon":7,"entry":2,"stop":-12,"target":25,"rationale":"up"}'
SELL = '{"action":"sell","conviction":62,"horizon":7,"entry":-2,"stop":12,"target":-25,"rationale":"down"}'
HOLD = '{"action":"hold","conviction":40,"horizon":5,"rationale":"flat"}'


def audit(number: int, answer: str = BUY, *, minute: int = 0, prompt: int | None = None) -> AuditRecord:
    trigger_id = uuid5(NAMESPACE_DNS, f"{number} {answer}")
    return AuditRecord(
        schema_version=1,
        run_mode=MODE,
        trigger_id=trigger_id,
        trigger_kind="closed_bar",
        trigger=ref(number),
        symbol=SYMBOL,
        interval="1m",
        mode="fast",
        outcome=Outcome.PUBLISHED,
        ts_done_ms=START,
        config_version="0" * 16,
        signal_id=uuid5(trigger_id, "fast"),
        action=Action(json.loads(answer)["action"] if answer.startswith("{") else answer.partition(" ")[0]),
        as_of=AsOf(market=ref(number, ts_event_ms=START + minute * MINUTE)),
        prompt_hash=f"{number if prompt is None else prompt:064x}",
        answer=answer,
    )


def outcome(of: AuditRecord, return_net: float | None, *, minutes: int = 5) -> SignalOutcome:
    assert of.signal_id is not None
    assert of.as_of is not None
    assert of.action is not None
    at_ms = of.as_of.market.ts_event_ms
    filled = return_net is not None
    return SignalOutcome(
        schema_version=1,
        run_mode=MODE,
        signal_id=of.signal_id,
        symbol=of.symbol,
        interval="1m",
        mode="fast",
        action=of.action,
        source="llm",
        vision="absent",
        conviction=0.6,
        exit_reason=ExitReason.HORIZON if filled else ExitReason.UNFILLED,
        ts_entry_ms=at_ms if filled else None,
        ts_exit_ms=at_ms + minutes * MINUTE,
        entry="100" if filled else None,
        exit="101" if filled else None,
        return_net=return_net,
        bars_held=minutes,
    )


@given(
    decided=st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 100)), min_size=1, max_size=60),
    share=st.floats(0.01, 0.9),
    embargo=st.integers(0, 200),
)
def test_no_training_outcome_is_known_later_than_the_embargo_before_the_first_test_decision(
    decided: list[tuple[int, int]], share: float, embargo: int
) -> None:
    records = [audit(number, minute=minute) for number, (minute, _) in enumerate(decided)]
    outcomes = [outcome(record, 0.01, minutes=lasted) for record, (_, lasted) in zip(records, decided, strict=True)]
    samples = samples_of(records, outcomes)
    test_from_ms = split_at(samples, share)
    split = split_by_time(samples, test_from_ms, embargo * MINUTE)
    assert len(split.train) + len(split.test) + split.purged == len(samples) == len(decided)
    assert split.test
    assert all(sample.at_ms >= test_from_ms for sample in split.test)
    assert all(sample.known_ms < test_from_ms - embargo * MINUTE for sample in split.train)
    times = [sample.at_ms for sample in (*split.train, *split.test)]
    assert times == sorted(times)


def test_only_published_answers_become_samples_each_trigger_once() -> None:
    good = audit(1)
    others = [
        good.model_copy(update={"trigger_id": uuid5(NAMESPACE_DNS, name), **changes})
        for name, changes in (
            ("failed", {"outcome": Outcome.FAILED}),
            ("no answer", {"answer": None}),
            ("no prompt", {"prompt_hash": None}),
        )
    ]
    assert [sample.record for sample in samples_of([good, good, *others], [])] == [good]


@pytest.mark.parametrize(("made", "chosen"), [(0.02, BUY), (-0.02, "hold")])
def test_without_another_answer_the_pair_is_with_holding(made: float, chosen: str) -> None:
    record = audit(1)
    (pair,) = pairs_of(samples_of([record], [outcome(record, made)]), {}, 0.0005)
    assert pair.kind == "hold"
    assert pair.difference == pytest.approx(0.02)
    assert chosen in pair.chosen
    held = pair.rejected if made > 0 else pair.chosen
    reader = AnswerReader(thinking=False)
    reader.feed(held)
    assert reader.finish(None).action == "hold"


@pytest.mark.parametrize(
    ("answer", "held"),
    [
        (BUY, '{"action":"hold","conviction":50,"horizon":7,"rationale":""}'),
        (BUY.replace(',"rationale":"up"', ""), '{"action":"hold","conviction":50,"horizon":7}'),
        ("buy 62 7 2 -12 25", "hold 50 7"),
        ("buy 62 7 2 -12 25\nup", "hold 50 7"),
    ],
)
def test_holding_is_written_in_the_form_of_the_answer_that_it_is_paired_with(answer: str, held: str) -> None:
    record = audit(1, answer)
    (pair,) = pairs_of(samples_of([record], [outcome(record, 0.02)]), {}, 0.0005)
    assert (pair.chosen, pair.rejected) == (answer, held)


def test_answers_to_one_prompt_are_paired_by_what_they_made() -> None:
    ours, theirs, elsewhere = audit(1), audit(2, SELL, prompt=1), audit(3, SELL)
    (sample,) = samples_of([ours], [outcome(ours, -0.01)])
    others = by_prompt(samples_of([theirs, elsewhere], [outcome(theirs, 0.004), outcome(elsewhere, 0.1)]))
    (pair,) = pairs_of([sample], others, 0.0005)
    assert (pair.chosen, pair.rejected, pair.kind) == (SELL, BUY, "answers")
    assert pair.difference == pytest.approx(0.014)


def test_small_differences_and_unscored_answers_make_no_pair() -> None:
    small, unscored, holding = audit(1), audit(2), audit(3, HOLD)
    samples = samples_of([small, unscored, holding], [outcome(small, 0.0003)])
    assert list(pairs_of(samples, {}, 0.0005)) == []


def test_an_unfilled_order_made_nothing() -> None:
    record = audit(1)
    (sample,) = samples_of([record], [outcome(record, None)])
    assert sample.return_net == 0.0


def test_an_order_held_over_a_suspected_split_is_not_scored() -> None:
    record = audit(1)
    over_split = outcome(record, None).model_copy(update={"exit_reason": ExitReason.CANCELLED, "unscored_reason": "suspected_split"})
    (sample,) = samples_of([record], [over_split])
    assert sample.return_net is None


async def _backtest(path: Path) -> Path:
    await run(plan(walk(150)), path)
    return path / "audit.jsonl"


def _request(audit_file: Path, folder: Path, **changes: Any) -> TrainingRequest:
    source = Source(str(audit_file), None, None, None, None)
    return dataclasses.replace(TrainingRequest(source, None, (), folder, None, 0.25, 10 * MINUTE, 0.0001), **changes)


def test_the_datasets_library_reads_the_files_as_llama_factory_documents_them(tmp_path: Path) -> None:
    """Formats: LLaMA-Factory's data/README.md, "Sharegpt Format", supervised fine-tuning and preference dataset."""
    audit_file = asyncio.run(_backtest(tmp_path / "run"))
    asyncio.run(export_training(_request(audit_file, tmp_path / "data")))
    info = json.loads((tmp_path / "data" / "dataset_info.json").read_text())
    assert set(info) == {f"aquiline_{kind}_{part}" for kind in ("sft", "dpo") for part in ("train", "test")}
    rows: dict[str, datasets.Dataset] = {}
    for name, described in info.items():
        assert described["formatting"] == "sharegpt"
        file = tmp_path / "data" / described["file_name"]
        loaded = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
        assert len(loaded) == len(file.read_bytes().splitlines()) > 0
        assert set(described["columns"].values()) <= set(loaded.column_names)
        assert described.get("ranking", False) is name.startswith("aquiline_dpo")
        rows[name] = loaded
    for name in ("aquiline_sft_train", "aquiline_sft_test"):
        for row in rows[name]:
            assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"]
            assert all(turn["value"] for turn in row["conversations"])
            assert row["system"].startswith("You are the decision step")
    for name in ("aquiline_dpo_train", "aquiline_dpo_test"):
        for row in rows[name]:
            assert [turn["from"] for turn in row["conversations"]] == ["human"]
            assert row["chosen"]["from"] == row["rejected"]["from"] == "gpt"
            assert row["chosen"]["value"] != row["rejected"]["value"]
    _plain_rows_are_what_was_decided(tmp_path, rows)


def _plain_rows_are_what_was_decided(folder: Path, rows: dict[str, datasets.Dataset]) -> None:
    audits = {str(one.trigger_id): one for one in map(AuditRecord.decode, (folder / "run" / "audit.jsonl").read_bytes().splitlines())}
    scored = {one.signal_id: one for one in map(SignalOutcome.decode, (folder / "run" / "outcomes.jsonl").read_bytes().splitlines())}
    starts = {}
    for part in ("train", "test"):
        lines = [json.loads(line) for line in (folder / "data" / f"plain-{part}.jsonl").read_bytes().splitlines()]
        assert len(lines) == len(rows[f"aquiline_sft_{part}"])
        for line in lines:
            record = audits[line["id"]]
            assert (line["answer"], line["prompt_hash"]) == (record.answer, record.prompt_hash)
            expected = None if record.signal_id not in scored else scored[record.signal_id].return_net
            assert line["outcome"]["return_net"] == expected
            assert line["symbol"] in line["prompt"]
        starts[part] = sorted(line["time"] for line in lines)
    assert starts["train"][-1] < starts["test"][0]


def test_a_trail_without_outcomes_says_what_is_missing(tmp_path: Path) -> None:
    audit_file = asyncio.run(_backtest(tmp_path / "run"))
    (tmp_path / "run" / "outcomes.jsonl").unlink()
    with pytest.raises(ServiceError, match=r"outcomes\.jsonl' cannot be read.*--outcomes"):
        asyncio.run(export_training(_request(audit_file, tmp_path / "data")))
