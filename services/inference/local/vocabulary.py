"""Hugging Face's tokenizer files made of what a GGUF file holds, so that a prompt's ids are the model's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import orjson

_CONTROL: Final = 3
_USER_DEFINED: Final = 4

_SPLITS: Final[dict[str, dict[str, Any]]] = {
    # llama.cpp's `smollm`: digits one by one, then GPT-2's own pattern.
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ],
    },
}
"""By llama.cpp's name, how text is cut before it is merged; a name says nothing of itself, so only these are known."""


def tokenizer_config(file: Path) -> bytes:
    """Return a `tokenizer_config.json` with the chat template of a GGUF file and the special tokens that it may name."""
    import gguf  # noqa: PLC0415 - an extra

    fields = gguf.GGUFReader(file).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name in ("bos", "eos"):
        if (field := fields.get(f"tokenizer.ggml.{name}_token_id")) is not None:
            config[f"{name}_token"] = tokens[field.contents()]
    if (template := fields.get("tokenizer.chat_template")) is not None:
        config["chat_template"] = template.contents()
    return orjson.dumps(config, option=orjson.OPT_INDENT_2)


def tokenizer_json(file: Path) -> bytes:
    """Return the `tokenizer.json` of a GGUF file; raise ValueError for a kind of tokenizer that is not known here."""
    import gguf  # noqa: PLC0415 - an extra

    fields = gguf.GGUFReader(file).fields

    def value(name: str) -> Any:
        field = fields.get(f"tokenizer.ggml.{name}")
        return None if field is None else field.contents()

    kind, split = value("model"), value("pre")
    if kind != "gpt2" or split not in _SPLITS:
        raise ValueError(f"{file} has a tokenizer {kind!r} with pre-tokenizer {split!r}; give the model's own tokenizer.json instead")
    tokens: list[str] = value("tokens")
    special = [number for number, one in enumerate(value("token_type")) if one in {_CONTROL, _USER_DEFINED}]
    return orjson.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    "id": number,
                    "content": tokens[number],
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
                for number in special
            ],
            "normalizer": None,
            "pre_tokenizer": _SPLITS[split],
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {token: number for number, token in enumerate(tokens)},
                "merges": [merge.split(" ", 1) for merge in value("merges")],
            },
        }
    )
