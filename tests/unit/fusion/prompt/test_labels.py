"""Labels are single tokens of whatever tokenizer is in use, and the question names them."""

from __future__ import annotations

import orjson
import pytest
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import models, pre_tokenizers

from services.core.tokenizer import Tokenizer
from services.fusion.prompt.labels import labels_of, question
from tests.unit.fusion.build import tokenizer as shipped


def of_words(*words: str) -> Tokenizer:
    """Return a tokenizer that knows the letters and `words`."""
    letters = sorted({letter for word in ("buy", "sell", "exit", "hold", *words) for letter in word} - set(words))
    vocabulary = {text: number for number, text in enumerate(["<unk>", *letters, *words])}
    hf = HfTokenizer(models.WordPiece(vocabulary, unk_token="<unk>", continuing_subword_prefix=""))
    hf.pre_tokenizer = pre_tokenizers.Whitespace()
    return Tokenizer(orjson.dumps(orjson.loads(hf.to_str())), "made here")


def test_words_are_labels_where_each_is_one_token() -> None:
    tokenizer = of_words("buy", "sell", "exit", "hold")
    labels = labels_of(tokenizer)
    assert list(labels.texts) == ["buy", "sell", "exit", "hold"]
    assert [tokenizer.decode([number]) for number in labels.ids] == ["buy", "sell", "exit", "hold"]
    assert question(labels) == "buy, sell, exit or hold?\n"


def test_letters_are_labels_where_a_word_is_several_tokens() -> None:
    tokenizer = of_words("buy", "sell", "B", "S", "E", "H")
    labels = labels_of(tokenizer)
    assert [tokenizer.decode([number]) for number in labels.ids] == ["B", "S", "E", "H"]
    assert question(labels) == "B for buy, S for sell, E for exit or H for hold?\n"


def test_a_tokenizer_without_either_is_refused_with_what_to_set() -> None:
    with pytest.raises(ValueError, match=r'set fusion.mode = "fast"'):
        labels_of(of_words("buy", "sell"))


def test_the_shipped_tokenizer_has_labels() -> None:
    assert len(labels_of(shipped()).ids) == 4
