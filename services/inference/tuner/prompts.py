"""The prompts that the tuner measures with: token ids from a JSON Lines file, or generated ones of the product's shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from services.inference.engine import TokenIds
from services.inference.launcher.presets import LaunchError

_SHARED_TOKENS = 1_200
_FIRST_ID, _LAST_ID = 300, 780


@dataclass(frozen=True, slots=True)
class Prompt:
    """`prefix` is what calls share and the engine caches, `tail` what is new in a call."""

    prefix: TokenIds
    tail: TokenIds


def read(file: Path) -> list[TokenIds]:
    """Return the prompts in `file`, one object a line with the list `input_ids`; raise LaunchError."""
    found: list[TokenIds] = []
    try:
        for number, line in enumerate(file.read_bytes().splitlines(), 1):
            if not line.strip():
                continue
            ids = np.asarray(orjson.loads(line)["input_ids"], dtype=np.int32)
            if ids.ndim != 1 or ids.size == 0 or int(ids.min()) < 0:
                raise LaunchError(f"{file}:{number}: input_ids must be a list of token ids")
            found.append(ids)
    except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise LaunchError(
            f"prompts in {str(file)!r} cannot be read: {type(error).__name__} {error}; expected lines of {{'input_ids': [...]}}"
        ) from error
    if not found:
        raise LaunchError(f"{str(file)!r} holds no prompts")
    return found


def synthetic(count: int, tokens: int, seed: int = 1) -> list[TokenIds]:
    """Return `count` prompts of `tokens` ids: a beginning that all share, then rows in which most ids repeat, as in bars of text."""
    source = np.random.default_rng(seed)
    shared = source.integers(_FIRST_ID, _LAST_ID, min(_SHARED_TOKENS, tokens // 2))
    prompts: list[TokenIds] = []
    for _ in range(count):
        row = source.integers(_FIRST_ID, _LAST_ID, 28)
        rows = np.tile(row, (tokens - shared.size) // row.size + 1)
        changed = source.random(rows.size) < 0.4  # noqa: PLR2004 - a bar's digits are some two fifths of its tokens
        rows[changed] = source.integers(_FIRST_ID, _LAST_ID, int(changed.sum()))
        prompts.append(np.concatenate([shared, rows])[:tokens].astype(np.int32))
    return prompts


def cut(prompts: Sequence[TokenIds], length: int, tail: int) -> list[Prompt]:
    """Return the prompts that are long enough, cut to `length` tokens of which the last `tail` are new in every call.

    Raises LaunchError when none is.
    """
    if not 0 < tail < length:
        raise LaunchError(f"a tail of {tail} tokens must be above 0 and below the prompt's length of {length}")
    long_enough = [Prompt(ids[: length - tail], ids[length - tail : length]) for ids in prompts if ids.size >= length]
    if not long_enough:
        raise LaunchError(f"no prompt has {length:,} tokens; the longest has {max(ids.size for ids in prompts):,}")
    return long_enough
