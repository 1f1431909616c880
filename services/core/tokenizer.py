"""A model's tokenizer, made context-free: what a text encodes to depends on that text alone.

Prompts are concatenations of blocks that were tokenized apart, so nothing may be put before, after or inside a block: no BOS, no
dummy prefix, and no special token that a text only spells. Special tokens are inserted by id. Only the chat template's own text, which
stands between them, is encoded as the model was trained on it: some tokenizers put a space before what follows a special token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import orjson
import tokenizers
from numpy.typing import NDArray

_RULES: Final = b"/template text after special tokens"


def fingerprint_of(definition: bytes) -> str:
    """Return the first 16 hex digits of the SHA-256 of a `tokenizer.json` and of the rules that ids are made by here."""
    return hashlib.sha256(definition + _RULES).hexdigest()[:16]


class Tokenizer:
    """A Hugging Face `tokenizer.json`, without what makes blocks depend on their surroundings."""

    def __init__(self, definition: bytes, where: str) -> None:
        """Load `definition`, the file's bytes; `where` names it in errors. Raise ValueError when it is no tokenizer."""
        try:
            parsed = orjson.loads(definition)
            trained = parsed | {"post_processor": None, "truncation": None, "padding": None}
            self._trained = tokenizers.Tokenizer.from_str(orjson.dumps(trained).decode())
            self._hf = tokenizers.Tokenizer.from_str(orjson.dumps(_context_free(parsed)).decode())
        except Exception as error:  # tokenizers raises bare Exception
            raise ValueError(f"{where} is not a Hugging Face tokenizer.json: {error}") from error
        self._hf.encode_special_tokens = True
        self._where = where
        self.fingerprint = fingerprint_of(definition)
        self.vocab_size: int = self._hf.get_vocab_size(with_added_tokens=True)
        """How many ids there are, special tokens included."""

    @classmethod
    def from_file(cls, path: Path | str) -> Self:
        """Load a `tokenizer.json`; raise ValueError when it cannot be read or is none."""
        try:
            return cls(Path(path).read_bytes(), str(path))
        except OSError as error:
            raise ValueError(f"tokenizer file {str(path)!r} cannot be read: {error.strerror}") from error

    def encode(self, text: str) -> NDArray[np.int32]:
        """Return the ids of `text`, shape (tokens,), as if nothing stood before or after it."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the ids of each of `texts`, each on its own, on several cores."""
        encoded = self._hf.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int32) for one in encoded]

    def encode_after(self, special: str, text: str) -> NDArray[np.int32]:
        """Return the ids of a chat template's own `text` right after the special token `special`, shape (tokens,).

        The tokenizer's rule for text after a special token holds, and tokens that the text spells, such as `<think>`, are those tokens.
        """
        first = self.special_id(special)
        ids = self._trained.encode(special + text, add_special_tokens=False).ids
        if ids[:1] != [first]:
            raise ValueError(
                f"the tokenizer {self._where} does not find its token {special!r} in text; is it the model's own tokenizer.json?"
            )
        return np.array(ids[1:], dtype=np.int32)

    def decode(self, ids: NDArray[np.int32] | Sequence[int]) -> str:
        """Return the text of `ids`, special tokens spelt out; ids outside the vocabulary are left out."""
        text: str = self._hf.decode(np.asarray(ids).tolist(), skip_special_tokens=False)
        return text

    def special_id(self, token: str) -> int:
        """Return the id of a special token such as `<|im_start|>`; raise ValueError when the vocabulary lacks it."""
        number: int | None = self._hf.token_to_id(token)
        if number is None:
            raise ValueError(
                f"the tokenizer {self._where} has no token {token!r}; use the model's own tokenizer.json, or another engine.chat_template"
            )
        return number


def _context_free(definition: dict[str, Any]) -> dict[str, Any]:
    """Return the definition without dummy prefix, templates, truncation and padding, and with every added token special.

    `encode_special_tokens` keeps only tokens that are marked special from being found in text; some models leave `<think>`
    unmarked.
    """
    for token in definition.get("added_tokens") or []:
        token["special"] = True
    return definition | {
        "normalizer": _without_prefix(definition.get("normalizer"), "normalizers"),
        "pre_tokenizer": _without_prefix(definition.get("pre_tokenizer"), "pretokenizers"),
        "decoder": _without_prefix(definition.get("decoder"), "decoders"),
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }


def _without_prefix(part: dict[str, Any] | None, members: str) -> dict[str, Any] | None:
    kind = part["type"] if part is not None else None
    # A decoder's Strip undoes the dummy prefix, and would eat a real space.
    if part is None or kind == "Prepend" or (kind == "Strip" and members == "decoders"):
        return None
    if kind == "Sequence":
        kept = [one for one in (_without_prefix(member, members) for member in part[members]) if one is not None]
        return part | {members: kept} if kept else None
    if kind == "Metaspace":
        return {key: value for key, value in part.items() if key != "add_prefix_space"} | {"prepend_scheme": "never"}
    if kind == "ByteLevel":
        return part | {"add_prefix_space": False}
    return part
