"""What the commands of a training begin with: examples by part, the model's folder, and the signals that stop it."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from services.training.examples import Example, ExamplesError, load, of_part


def parts_of(examples_file: Path) -> tuple[list[Example], list[Example]]:
    """Return the training and the test examples of a file; raise ExamplesError where it cannot be read or holds none to train on."""
    every, _ = load(examples_file)
    train = list(of_part(every, "train"))
    if not train:
        raise ExamplesError(f"{examples_file} holds no training examples; prepare it from exports with an earlier test date")
    return train, list(of_part(every, "test"))


def spread(examples: Sequence[Example], count: int) -> list[Example]:
    """Return at most `count` examples, taken at equal distances."""
    return list(examples[:: max(1, math.ceil(len(examples) / count))]) if count else []


def llama_folder(model: Path, out: Path, say: Callable[[str], None]) -> Path:
    """Return the folder of a model, written beside the adapter where it is a GGUF file."""
    if not model.is_file():
        return model
    from services.training.model_folder import from_gguf  # noqa: PLC0415 - torch

    folder = out / "base"
    if not folder.is_dir():
        say(f"writing {model.name} in Llama's form")
        out.mkdir(parents=True, exist_ok=True)
        from_gguf(model, folder)
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
