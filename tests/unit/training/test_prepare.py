"""From the shipped stocks to examples: real backtests, exports and prompts, with the ids that the worker sent."""

from __future__ import annotations

import datetime as dt
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Literal

import orjson
import pytest

from services.core.errors import ServiceError
from services.core.tokenizer import Tokenizer
from services.fusion.decide.answer import AnswerReader
from services.training.examples import ExamplesError, of_part
from services.training.prepare import Wanted, prepare
from services.training.sample_runs import Shape, export_samples

UNTIL_MS = round(dt.datetime(2000, 7, 1, tzinfo=dt.UTC).timestamp() * 1000)
TEMPLATE = "minicpm4"
"""That of the simulator's tokenizer, which ships."""

EXPORTED = {
    "id": "a",
    "time": "2009-01-02T21:00:00.000+00:00",
    "symbol": "AAPL.XNAS",
    "mode": "fast",
    "system": "rules",
    "prompt": "Facts: close=100.00 atr=2.00 rsi=56.1 ret_5=+120.3 macd_hist=0.21\n",
    "answer": "buy 50 10 3 -25 20\nMomentum setup.",
    "source": "llm",
    "prompt_hash": "0",
    "outcome": None,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer((files("services.inference") / "data" / "tokenizer.json").read_bytes(), "the simulator's tokenizer")


async def test_decisions_on_the_shipped_stocks_become_examples_with_the_worker_s_own_ids(tmp_path: Path, tokenizer: Tokenizer) -> None:
    shape = Shape("small", "1d", 10, 6)
    said: list[str] = []
    folders = await export_samples(
        tmp_path, tokenizer_file=None, chat_template=TEMPLATE, vision="none", shapes=(shape,), until_ms=UNTIL_MS, progress=said.append
    )
    made = prepare(folders, tokenizer, TEMPLATE, Wanted(train=[60], test=10, max_tokens=4_096), said.append)
    # Every prompt that was encoded here has the hash in the audit: none was left out for its ids.
    assert not [reason for reason in made.left_out if "ids" in reason or "words" in reason]
    assert len(list(of_part(made.examples, "train"))) == 60
    assert not list(of_part(made.examples, "test"))
    assert {one.about.kind for one in made.examples} >= {"line", "flash"}
    judged = [one for one in made.examples if one.about.paid is not None]
    assert judged
    for one in made.examples:
        decision = tokenizer.decode(one.ids[one.decision])
        first = {"buy": "buy", "sell": "sell"}.get(one.about.action, "hold" if one.about.kind == "flash" else "abstain")
        assert first in decision.split('"')[3:4] if one.about.kind == "json" else decision.split()[0] == first
        assert "." not in decision  # no rationale, which quotes numbers
        if one.about.kind in {"line", "json"}:
            text = tokenizer.decode(one.answer_ids[:-1])
            reader = AnswerReader(thinking=False)
            reader.feed(text)
            answer = reader.finish("stop")
            assert answer.action == one.about.action
            assert answer.rationale
        assert (one.about.action in {"buy", "sell"}) == (one.about.paid is True)
    # Another export whose test part begins before the training part of this one ends.
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(folders[0] / "plain-train.jsonl", other / "plain-test.jsonl")
    (other / "plain-train.jsonl").touch()
    with pytest.raises(ExamplesError, match="what is tested has to come after"):
        prepare([*folders, other], tokenizer, TEMPLATE, Wanted(train=[60], test=10, max_tokens=4_096), said.append)
    said.clear()
    again = await export_samples(
        tmp_path, tokenizer_file=None, chat_template=TEMPLATE, vision="none", shapes=(shape,), until_ms=UNTIL_MS, progress=said.append
    )
    assert again == folders
    assert said == ["small: exported already"]


def test_what_is_no_export_is_refused_with_its_name(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(ServiceError, match=r"plain-train\.jsonl cannot be read"):
        prepare([tmp_path], tokenizer, TEMPLATE, Wanted([1], 1, 512), lambda _line: None)
    (tmp_path / "plain-train.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(ServiceError, match="is no export"):
        prepare([tmp_path], tokenizer, TEMPLATE, Wanted([1], 1, 512), lambda _line: None)


@pytest.mark.parametrize("row", [[1], 5, None, {"prompt": 5}, {"outcome": "won"}, {"outcome": {"return_net": "a lot"}}])
def test_a_row_of_another_shape_is_refused_with_its_file(row: object, tmp_path: Path, tokenizer: Tokenizer) -> None:
    content = EXPORTED | row if isinstance(row, dict) else row
    (tmp_path / "plain-train.jsonl").write_bytes(orjson.dumps(content) + b"\n")
    with pytest.raises(ServiceError, match=r"plain-train\.jsonl is no export"):
        prepare([tmp_path], tokenizer, TEMPLATE, Wanted([1], 1, 512), lambda _line: None)


@pytest.mark.parametrize("teacher", ["outcome", "kind"])
def test_an_export_without_outcomes_is_refused_since_nothing_says_what_paid(
    teacher: Literal["outcome", "kind"], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = [EXPORTED | {"id": str(number), "prompt_hash": str(number)} for number in range(3)]
    for part in ("train", "test"):
        (tmp_path / f"plain-{part}.jsonl").write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    with pytest.raises(ServiceError, match=r"has an outcome.*--outcomes"):
        prepare([tmp_path], tokenizer, TEMPLATE, Wanted([1], 1, 512, teacher=teacher), lambda _line: None)


def test_a_template_that_cannot_end_an_answer_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for part in ("train", "test"):
        (tmp_path / f"plain-{part}.jsonl").write_text("")
    with pytest.raises(ValueError, match="no token that ends an answer"):
        prepare([tmp_path], tokenizer, "none", Wanted([1], 1, 512), lambda _line: None)
    with pytest.raises(ValueError, match="expected one of minicpm4"):
        prepare([tmp_path], tokenizer, "llama9", Wanted([1], 1, 512), lambda _line: None)
