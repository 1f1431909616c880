"""Token ids of blocks, from the fastest source that has them: this process, Redis, the tokenizer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from services.fusion.prompt.blocks import Block, Encoder, Run
from services.fusion.prompt.chat import Piece
from services.fusion.prompt.store import PrefixStore
from services.inference.engine import TokenIds

_INLINE_CHARACTERS: Final = 1_000
"""A page and a half, whose ids take 1 ms; handing work to a thread and back costs 0.2 ms, and more where cores are few."""


class BlockCache:
    """An in-process cache of block ids before the prefix store and the tokenizer."""

    def __init__(self, encoder: Encoder, store: PrefixStore, max_bytes: int) -> None:
        """Keep up to `max_bytes` of ids in the process."""
        self._encoder = encoder
        self._store = store
        self._held: OrderedDict[tuple[bytes, int], Run] = OrderedDict()
        """By the key of the last block and the count of blocks: whole runs, and single blocks of runs that are not whole yet."""
        self._max_bytes = max_bytes
        self._bytes = 0

    async def resolve(self, blocks: Sequence[Block], stored: Sequence[range]) -> Run:
        """Return the ids of `blocks`, a chain from a prompt's start.

        `stored` are the ranges of blocks that Redis holds as one value each, from the first block on. Blocks after them are not in Redis.
        """
        end = stored[-1].stop if stored else 0
        parts = [*stored, *(range(at, at + 1) for at in range(end, len(blocks)))]
        names = [(blocks[part[-1]].key, len(part)) for part in parts]
        found = [self._get(name) for name in names]
        wanted = [at for at in range(len(stored)) if found[at] is None]
        if wanted:
            for at, run in zip(wanted, await self._store.get([names[at] for at in wanted]), strict=True):
                if run is not None:
                    self._keep(names[at], run)
                    found[at] = run
        absent = [at for at, run in enumerate(found) if run is None]
        if absent:
            made = await self._make(blocks, [parts[at] for at in absent])
            for at, run in zip(absent, made, strict=True):
                self._keep(names[at], run)
                found[at] = run
            self._store.put({names[at][0]: run for at, run in zip(absent, made, strict=True) if at < len(stored)})
        return Run.joined([run for run in found if run is not None])

    async def _make(self, blocks: Sequence[Block], parts: Sequence[range]) -> list[Run]:
        """Return the runs of these ranges, joined from single blocks in the cache and from the tokenizer."""
        single = {at: self._evict((blocks[at].key, 1)) for part in parts for at in part}
        absent = [at for at, run in single.items() if run is None]
        encoded = dict(zip(absent, await self._encode([blocks[at].piece for at in absent]), strict=True))
        return [Run.of([run.ids if (run := single[at]) is not None else encoded[at] for at in part]) for part in parts]

    async def _encode(self, pieces: Sequence[Piece]) -> list[TokenIds]:
        if sum(len(piece) for piece in pieces if isinstance(piece, str)) <= _INLINE_CHARACTERS:
            return self._encoder.encode_all(pieces)
        # Tokenizing 20,000 tokens takes 39 ms and releases the interpreter lock.
        return await asyncio.to_thread(self._encoder.encode_all, pieces)

    def _get(self, name: tuple[bytes, int]) -> Run | None:
        run = self._held.get(name)
        if run is not None:
            self._held.move_to_end(name)
        return run

    def _keep(self, name: tuple[bytes, int], run: Run) -> None:
        self._evict(name)
        self._held[name] = run
        self._bytes += run.ids.nbytes
        while self._bytes > self._max_bytes and len(self._held) > 1:
            self._evict(next(iter(self._held)))

    def _evict(self, name: tuple[bytes, int]) -> Run | None:
        run = self._held.pop(name, None)
        if run is not None:
            self._bytes -= run.ids.nbytes
        return run
