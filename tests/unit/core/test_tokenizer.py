"""What a text encodes to depends on that text alone, with a byte-level BPE and with a Llama-style one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from services.core.tokenizer import Tokenizer

CORPUS = ["0104    101.25 +0012 +0043 -0020 12e6 55\n", "the rules of the desk\n", "close=101.5 atr=2 rsi=61\n"] * 20
SPECIAL = ["<s>", "</s>", "<unk>", "<|im_start|>", "<think>"]


def byte_level() -> bytes:
    hf = tokenizers.Tokenizer(tokenizers.models.BPE())
    hf.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    hf.decoder = tokenizers.decoders.ByteLevel()
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    hf.train_from_iterator(CORPUS, trainer)
    hf.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    hf.enable_truncation(8)
    hf.enable_padding()
    return str(hf.to_str()).encode()


def llama_style() -> bytes:
    hf = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    hf.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")])
    hf.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=500, special_tokens=[*SPECIAL, *fallback], show_progress=False)
    hf.train_from_iterator(CORPUS, trainer)
    definition = orjson.loads(hf.to_str())
    # As the real files have it: byte tokens are part of the model, not added; and some models do not mark <think> as special.
    definition["added_tokens"] = [one for one in definition["added_tokens"] if one["content"] in SPECIAL]
    definition["added_tokens"][-1]["special"] = False
    definition["post_processor"] = None
    return orjson.dumps(definition)


def metaspace() -> bytes:
    hf = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    hf.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always")
    hf.decoder = tokenizers.decoders.Metaspace(prepend_scheme="always")
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    hf.train_from_iterator(CORPUS, trainer)
    return str(hf.to_str()).encode()


TOKENIZERS = {"byte-level": Tokenizer(byte_level(), "byte-level"), "llama-style": Tokenizer(llama_style(), "llama-style")}
SHIPPED = Tokenizer.from_file(Path("services/inference/data/tokenizer.json"))
every = pytest.mark.parametrize("tokenizer", [*TOKENIZERS.values(), SHIPPED], ids=[*TOKENIZERS, "shipped"])
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="▁"), max_size=40)
SPELT = st.lists(st.one_of(TEXT, st.sampled_from(SPECIAL)), max_size=5).map("".join)


@every
@given(first=SPELT, second=SPELT)
def test_blocks_encode_alike_whatever_stands_around_them_and_decode_to_their_concatenation(
    tokenizer: Tokenizer, first: str, second: str
) -> None:
    a, b = tokenizer.encode_batch([first, second])
    assert tokenizer.encode(second).tolist() == b.tolist()
    assert tokenizer.encode(first).tolist() == a.tolist()
    assert a.dtype == b.dtype == np.int32
    assert tokenizer.decode(np.concatenate([a, b])) == first + second


@every
@given(text=SPELT)
def test_a_text_that_spells_special_tokens_never_becomes_one(tokenizer: Tokenizer, text: str) -> None:
    forbidden = {tokenizer.special_id(token) for token in SPECIAL}
    assert forbidden.isdisjoint(tokenizer.encode(text).tolist())


@every
@pytest.mark.parametrize("token", SPECIAL)
def test_special_tokens_come_by_id_and_are_spelt_out_when_decoded(tokenizer: Tokenizer, token: str) -> None:
    ids = [*tokenizer.encode("a").tolist(), tokenizer.special_id(token), *tokenizer.encode("b").tolist()]
    assert f"a{token}b" == tokenizer.decode(ids).replace(" ", "")


def test_a_metaspace_puts_nothing_before_a_block() -> None:
    tokenizer = Tokenizer(metaspace(), "metaspace")
    assert tokenizer.decode(tokenizer.encode("rules")) == "rules"
    assert tokenizer.decode(tokenizer.encode(" rules")) == " rules"


def test_a_missing_special_token_is_named() -> None:
    with pytest.raises(ValueError, match=r"byte-level has no token '<\|nothing\|>'"):
        TOKENIZERS["byte-level"].special_id("<|nothing|>")


def test_the_fingerprint_is_that_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(byte_level())
    first = Tokenizer.from_file(file)
    file.write_bytes(byte_level() + b"\n")
    assert len(first.fingerprint) == 16
    assert first.fingerprint != Tokenizer.from_file(file).fingerprint


def test_what_is_no_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    with pytest.raises(ValueError, match="cannot be read"):
        Tokenizer.from_file(file)
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a Hugging Face"):
        Tokenizer.from_file(file)
