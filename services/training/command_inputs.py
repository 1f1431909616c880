"""What the commands of a training begin with: examples by part, the model's folder, and the signals that stop it."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from services.core.tokenizer import fingerprint_of
from services.training.examples import Example, ExamplesError, check_order, load, of_part


class Inputs(NamedTuple):
    """The examples of a file by part, and the fingerprint of the tokenizer that they were encoded with."""

    file: Path
    train: list[Example]
    test: list[Example]
    tokenizer: str | None


def read_inputs(examples_file: Path, *, to_train: bool = True) -> Inputs:
    """Return the examples of a file; raise ExamplesError where it cannot be read, mixes the times, or lacks the part that is needed."""
    every, made_with = load(examples_file)
    check_order(every)
    found = Inputs(examples_file, list(of_part(every, "train")), list(of_part(every, "test")), made_with.get("tokenizer"))
    if to_train and not found.train:
        raise ExamplesError(f"{examples_file} holds no training examples; prepare it from exports with a later test date")
    if not to_train and not found.test:
        raise ExamplesError(f"{examples_file} holds no test examples; prepare it from exports with an earlier test date")
    return found


def spread(examples: Sequence[Example], count: int) -> list[Example]:
    """Return at most `count` examples, taken at equal distances."""
    return list(examples[:: max(1, math.ceil(len(examples) / count))]) if count else []


def check_tokenizer(inputs: Inputs, file: Path) -> None:
    """Raise ExamplesError where the examples were encoded with another tokenizer than `file`."""
    if inputs.tokenizer is not None and (fingerprint := fingerprint_of(file.read_bytes())) != inputs.tokenizer:
        raise ExamplesError(
            f"{inputs.file} was encoded with another tokenizer ({inputs.tokenizer}) than {file} ({fingerprint}): "
            "prepare the examples again with this --tokenizer-file"
        )


def llama_folder(model: Path, out: Path, inputs: Inputs, say: Callable[[str], None]) -> Path:
    """Return the folder of a model in Llama's form that fits the examples, written beside the adapter where it is a GGUF file.

    Raises ModelError, ExamplesError.
    """
    from services.training.model_files import ModelError, digest_of_file, read_config  # noqa: PLC0415 - torch
    from services.training.model_folder import from_gguf  # noqa: PLC0415

    folder = model
    if model.is_file():
        folder = out / f"base-{digest_of_file(model)}"
        if not folder.is_dir():
            say(f"writing {model.name} in Llama's form")
            from_gguf(model, folder)
    config = read_config(folder)
    if config.get("architectures") != ["LlamaForCausalLM"]:
        raise ModelError(
            f"{folder} is {config.get('architectures')}, and only ['LlamaForCausalLM'] is trained: "
            "write a MiniCPM in that form with `aquiline engine convert`"
        )
    if (folder / "tokenizer.json").is_file():
        check_tokenizer(inputs, folder / "tokenizer.json")
    examples = [*inputs.train, *inputs.test]
    highest, longest = max(int(one.ids.max()) for one in examples), max(one.ids.size for one in examples)
    if highest >= config["vocab_size"]:
        raise ExamplesError(
            f"{inputs.file} holds the token {highest}, and {folder} has {config['vocab_size']} tokens: "
            "prepare the examples with the model's own --tokenizer-file"
        )
    if longest > config["max_position_embeddings"]:
        raise ExamplesError(
            f"{inputs.file} holds an example of {longest} tokens, and {folder} reads {config['max_position_embeddings']}: "
            f"prepare the examples with --max-tokens {config['max_position_embeddings']}"
        )
    return folder


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield whether to go on: false once Ctrl-C or SIGTERM has come."""
    stopping = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: not stopping.is_set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
