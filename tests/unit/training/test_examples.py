"""A file of examples is read as it was written, and anything else is refused in a sentence that names it."""

from __future__ import annotations

import io
import json
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.training.command_inputs import read_inputs
from services.training.examples import Example, ExamplesError, load, save
from tests.unit.training.build import examples


def of_time(some: list[Example], time: str) -> list[Example]:
    return [replace(one, about=replace(one.about, time=time)) for one in some]


def changed(file: Path, **arrays: Any) -> bytes:
    """Return the file with some of its arrays changed."""
    stored = dict(np.load(io.BytesIO(lzma.decompress(file.read_bytes()))))
    buffer = io.BytesIO()
    np.savez(buffer, **(stored | {name: change(stored[name]) for name, change in arrays.items()}))
    return lzma.compress(buffer.getvalue())


def encoded(value: object) -> Any:
    return lambda _before: np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def test_examples_are_read_as_they_were_written(tmp_path: Path) -> None:
    some = [*examples(5), *examples(2, part="test")]
    save(some, tmp_path / "examples", {"tokenizer": "t"})
    found, made_with = load(tmp_path / "examples")
    assert made_with["tokenizer"] == "t"
    for one, other in zip(some, found, strict=True):
        assert one.about == other.about
        assert one.ids.tolist() == other.ids.tolist()
        assert one.taught.tolist() == other.taught.tolist()
        assert one.decision.tolist() == other.decision.tolist()
    (tmp_path / "other").write_bytes(b"no examples")
    with pytest.raises(ExamplesError, match="no file of examples"):
        load(tmp_path / "other")


def test_what_is_no_file_of_examples_is_refused(tmp_path: Path) -> None:
    good = tmp_path / "good"
    save(examples(4), good, {"tokenizer": "t"})
    packed = lzma.decompress(good.read_bytes())
    array = io.BytesIO()
    np.save(array, np.arange(3))
    bad = {
        "text": b"no examples",
        "packed text": lzma.compress(b"no examples"),
        "begins as an archive": lzma.compress(b"PK\x03\x04 and no more"),
        "cut off": good.read_bytes()[:-200],
        "cut off inside": lzma.compress(packed[:-100]),
        "one array": lzma.compress(array.getvalue()),
        "longer than its ids": changed(good, lengths=lambda before: before * 2),
        "negative lengths": changed(good, lengths=lambda before: -before),
        "negative ids": changed(good, ids=lambda before: -before),
        "nothing taught": changed(good, taught=lambda before: before * 0),
        "fewer descriptions": changed(good, about=encoded([])),
        "other descriptions": changed(good, about=encoded([{"id": "a"}] * 4)),
        "no table": changed(good, made_with=encoded([1])),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ExamplesError, match=f"{name} is no file of examples"):
            load(tmp_path / name)


def test_a_file_of_another_format_is_named_with_what_to_do(tmp_path: Path) -> None:
    save(examples(4), tmp_path / "good", {"tokenizer": "t"})
    (tmp_path / "old").write_bytes(changed(tmp_path / "good", made_with=encoded({"format": 1})))
    with pytest.raises(ExamplesError, match=r"^\S+ has format 1, and this version reads 2: write it again"):
        load(tmp_path / "old")


def test_each_command_needs_the_part_that_it_works_on(tmp_path: Path) -> None:
    save(examples(4), tmp_path / "train", {})
    save(examples(4, part="test"), tmp_path / "test", {})
    assert len(read_inputs(tmp_path / "train").train) == 4
    assert len(read_inputs(tmp_path / "test", to_train=False).test) == 4
    with pytest.raises(ExamplesError, match="holds no training examples"):
        read_inputs(tmp_path / "test")
    with pytest.raises(ExamplesError, match="holds no test examples"):
        read_inputs(tmp_path / "train", to_train=False)


def test_a_test_prompt_before_a_training_prompt_is_refused(tmp_path: Path) -> None:
    train = of_time(list(examples(4)), "2009-12-31T21:00:00.000+00:00")
    test = list(examples(4, part="test"))
    save([*train, *of_time(test, "2010-01-04T21:00:00.000+00:00")], tmp_path / "good", {})
    assert read_inputs(tmp_path / "good").test
    save(
        [*train, *of_time(test[:3], "2010-01-04T21:00:00.000+00:00"), *of_time(test[3:], "2009-12-30T21:00:00.000+00:00")],
        tmp_path / "bad",
        {},
    )
    for to_train in (True, False):
        with pytest.raises(ExamplesError, match=r"first test prompt is of 2009-12-30.*last training prompt of 2009-12-31"):
            read_inputs(tmp_path / "bad", to_train=to_train)
