"""Blocks: the pieces of a prompt, each with a key that hashes all the text up to and including it, and the encoder that makes ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from services.core.tokenizer import Tokenizer
from services.fusion.prompt.chat import ChatTemplate, Piece, Special
from services.inference.engine import TokenIds

_KEY_BYTES: Final = 16


class Block(NamedTuple):
    """A piece of a prompt, with the key of all pieces up to and including it."""

    key: bytes
    piece: Piece


def chain(parent: bytes, pieces: Iterable[Piece]) -> list[Block]:
    """Return `pieces` as blocks that follow the block with key `parent`."""
    blocks = []
    for piece in pieces:
        content = b"\0" + piece.token.encode() if isinstance(piece, Special) else piece.encode()
        parent = hashlib.blake2b(parent + content, digest_size=_KEY_BYTES).digest()
        blocks.append(Block(parent, piece))
    return blocks


class Run(NamedTuple):
    """The ids of consecutive blocks, and how many ids each block has."""

    ids: TokenIds
    lengths: Sequence[int]

    @classmethod
    def of(cls, blocks: Sequence[TokenIds]) -> Run:
        """Return the run of blocks with these ids."""
        return cls(np.concatenate(blocks), [len(ids) for ids in blocks])

    @classmethod
    def joined(cls, parts: Sequence[Run]) -> Run:
        """Return these runs as one."""
        return cls(np.concatenate([part.ids for part in parts]), [length for part in parts for length in part.lengths])


def runs(start: int, stop: int, length: int) -> Iterator[range]:
    """Yield the indices from `start` to before `stop` in runs of `length`, the last one of what is left."""
    for first in range(start, stop, length):
        yield range(first, min(first + length, stop))


class Encoder:
    """Turns pieces into ids; the ids of the template's pieces are computed once."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        """Look up the template's special tokens at once; raise ValueError naming one that the tokenizer lacks."""
        self._tokenizer = tokenizer
        self._known: dict[Piece, TokenIds] = {}
        for pieces in (template.head, template.middle, template.fast_tail, template.deep_tail, template.next_user):
            before: Piece = ""
            for piece in pieces:
                if isinstance(piece, Special):
                    ids = np.array([tokenizer.special_id(piece.token)], dtype=np.int32)
                else:
                    ids = tokenizer.encode_after(before.token, piece) if isinstance(before, Special) else tokenizer.encode(piece)
                if not np.array_equal(self._known.setdefault(piece, ids), ids):
                    raise ValueError(f"the chat template has {piece!r} after different tokens, where this tokenizer encodes it differently")
                before = piece

    def encode(self, piece: Piece) -> TokenIds:
        """Return the ids of one piece."""
        known = self._known.get(piece)
        return self._text(piece) if known is None else known

    def encode_all(self, pieces: Iterable[Piece]) -> list[TokenIds]:
        """Return the ids of each piece."""
        pieces = list(pieces)
        texts = iter(self._tokenizer.encode_batch([piece for piece in pieces if isinstance(piece, str) and piece not in self._known]))
        return [next(texts) if (known := self._known.get(piece)) is None else known for piece in pieces]

    def _text(self, piece: Piece) -> TokenIds:
        if isinstance(piece, Special):
            raise KeyError(f"the special token {piece.token!r} is not of this template")
        return self._tokenizer.encode(piece)
