"""Training examples: prompts and taught answers as token ids, in one compressed file that a GPU host reads without the services.

Prompts are encoded as the worker encodes them, and held against the hash that the worker stored. Needs numpy alone to read.
"""

from __future__ import annotations

import io
import json
import lzma
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Part = Literal["train", "test"]
_FORMAT: Final = 2
_ARRAYS: Final = ("ids", "taught", "decision", "lengths", "about", "made_with")


class ExamplesError(ValueError):
    """The file of examples cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class About:
    """What an example is of. `kind` is how the question was asked; `action` is taught, `rule` is what the setups alone would do."""

    id: str
    part: Part
    kind: Literal["line", "line_short", "flash", "json"]
    symbol: str
    time: str
    shape: str
    action: str
    rule: str
    paid: bool | None
    return_net: float | None


@dataclass(frozen=True)
class Example:
    """`ids` int32, `taught` and `decision` bool, all of shape (tokens,): the tokens to learn to say, and those of them that decide."""

    about: About
    ids: NDArray[np.int32]
    taught: NDArray[np.bool_]
    decision: NDArray[np.bool_]

    @property
    def prompt_ids(self) -> NDArray[np.int32]:
        """Return what comes before the first taught token."""
        return self.ids[: int(np.argmax(self.taught))]

    @property
    def answer_ids(self) -> NDArray[np.int32]:
        """Return the taught tokens."""
        return self.ids[self.taught]


def save(examples: Sequence[Example], file: Path, about: dict[str, Any]) -> None:
    """Write `examples`; `about` says what they were made with (tokenizer, template, prompt version)."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        ids=np.concatenate([one.ids for one in examples]).astype(np.int32),
        taught=np.packbits(np.concatenate([one.taught for one in examples])),
        decision=np.packbits(np.concatenate([one.decision for one in examples])),
        lengths=np.array([one.ids.size for one in examples], dtype=np.int64),
        about=np.frombuffer(json.dumps([asdict(one.about) for one in examples]).encode(), dtype=np.uint8),
        made_with=np.frombuffer(json.dumps(about | {"format": _FORMAT}).encode(), dtype=np.uint8),
    )
    partial = file.with_name(file.name + ".partial")
    # Neighbouring prompts share most of their rows: only a dictionary larger than a prompt finds that.
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 4, "dict_size": 1 << 26}]
    with lzma.open(partial, "wb", format=lzma.FORMAT_XZ, filters=filters) as out:
        out.write(buffer.getbuffer())
    partial.replace(file)


def load(file: Path) -> tuple[list[Example], dict[str, Any]]:
    """Return the examples of a file, and what they were made with; raise ExamplesError."""
    try:
        with lzma.open(file) as packed, zipfile.ZipFile(io.BytesIO(packed.read())) as archive:
            arrays = {name: np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False) for name in _ARRAYS}
        made_with: dict[str, Any] = json.loads(arrays["made_with"].tobytes())
        version = made_with["format"]
        abouts = [About(**about) for about in json.loads(arrays["about"].tobytes())]
        examples = _examples(arrays, abouts) if version == _FORMAT else []
    except (OSError, lzma.LZMAError, zipfile.BadZipFile, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
        raise ExamplesError(f"{file} is no file of examples: {error}; `aquiline model prepare` writes one") from error
    if version != _FORMAT:
        raise ExamplesError(f"{file} has format {version}, and this version reads {_FORMAT}: write it again with `aquiline model prepare`")
    return examples, made_with


def _examples(arrays: Mapping[str, NDArray[Any]], abouts: Sequence[About]) -> list[Example]:
    """Return the examples of a file's arrays; raise ValueError where these do not fit each other."""
    lengths, ids = arrays["lengths"], arrays["ids"]
    if lengths.shape != (len(abouts),) or (lengths < 1).any() or ids.shape != (lengths.sum(),) or (ids < 0).any():
        raise ValueError("its lengths, ids and descriptions do not fit each other")
    masks = [np.unpackbits(arrays[name], count=ids.size).astype(bool) for name in ("taught", "decision")]
    parts = [np.split(one, np.cumsum(lengths)[:-1]) for one in (ids.astype(np.int32), *masks)]
    examples = [Example(about, *part) for about, *part in zip(abouts, *parts, strict=True)]
    if not all(one.taught.any() for one in examples):
        raise ValueError("an example teaches no token")
    return examples


def check_order(examples: Sequence[Example]) -> None:
    """Raise ExamplesError where a test prompt is of a time before that of a training prompt: the model would know what it is asked."""
    last = max((one.about.time for one in examples if one.about.part == "train"), default="")
    first = min((one.about.time for one in examples if one.about.part == "test"), default=last)
    if first < last:
        raise ExamplesError(
            f"the first test prompt is of {first} and the last training prompt of {last}: what is tested has to come after all that is "
            "trained on; export every source again with the same --test-from"
        )


def of_part(examples: Iterable[Example], part: Part) -> Iterator[Example]:
    """Yield those for training or for testing."""
    return (one for one in examples if one.about.part == part)
