"""One epoch's prefix: its base, which may be evicted and fetched again, and a line for each bar since the boundary."""

from __future__ import annotations

import asyncio
from typing import Final

import numpy as np

from services.fusion.prompt.blocks import Block, runs
from services.inference.engine import TokenIds

RUN_BLOCKS: Final = 8
"""Blocks of a base that Redis holds as one value, some 4,000 tokens: fewer values take less time, and pre-warmed pages wait for their run
to be whole before they are stored."""


class EpochPrefix:
    """The ids of one epoch's prefix, which only grows."""

    def __init__(self, blocks: list[Block], fixed: int, version: int, index: int) -> None:
        """`blocks` are the base, `fixed` of them before its pages; `version` is the book's and `index` the epoch's."""
        self.blocks = blocks
        self.runs = list(runs(0, len(blocks), RUN_BLOCKS))
        """The base's blocks by the value that holds their ids."""
        self.fixed = fixed
        self.version = version
        self.index = index
        self.epoch = blocks[-1].key.hex()[:12]
        self.using = asyncio.Lock()
        """Held while a prompt is built from it."""
        self.tip = blocks[-1].key
        """Key of the last line that has its ids, of the base when no line has."""
        self.unsaved: list[TokenIds] = []
        """Ids of lines that are not in the store yet."""
        self.tokens = 0
        """Tokens of base and lines, 0 before they are known."""
        self._base: TokenIds | None = None
        self._since = np.empty(0, dtype=np.int32)
        self._ends = [0]
        """Where each line ends in `_since`."""

    @property
    def recipe(self) -> list[bytes]:
        """Return the keys under which the base's ids are stored, in order."""
        return [self.blocks[run[-1]].key for run in self.runs]

    @property
    def filled(self) -> bool:
        """Return whether the base's ids are there."""
        return self._base is not None

    @property
    def nbytes(self) -> int:
        """Return the memory that `release` frees."""
        return 0 if self._base is None else self._base.nbytes

    @property
    def lines(self) -> int:
        """Return how many lines since the boundary have their ids."""
        return len(self._ends) - 1

    def fill(self, base: TokenIds) -> None:
        """Take the base's ids."""
        self._base = base
        self.tokens = len(base) + self._ends[-1]

    def release(self) -> None:
        """Drop the base's ids: with 32K tokens they take 128 KB, everything else 40 KB."""
        self._base = None

    def append(self, key: bytes, ids: TokenIds) -> None:
        """Grow by the next line."""
        start = self._ends[-1]
        need = start + len(ids)
        if need > len(self._since):
            room = np.empty(2 * need + 256, dtype=np.int32)
            room[:start] = self._since[:start]
            self._since = room
        self._since[start:need] = ids
        self._ends.append(need)
        self.tip = key
        if self._base is not None:
            self.tokens += len(ids)

    def followed_by(self, tail: TokenIds, lines: int) -> TokenIds:
        """Return the ids of the base, the first `lines` lines and `tail`; the base must be filled."""
        assert self._base is not None  # noqa: S101 - the caller fills it first
        return np.concatenate([self._base, self._since[: self._ends[lines]], tail])
