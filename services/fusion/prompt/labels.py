"""The labels of mode `flash`: for each action a text that is one token, so that one log-probability says how likely the action is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from services.core.tokenizer import Tokenizer
from services.fusion.prompt import wording
from services.inference.engine import TokenIds

LabelAction = Literal["buy", "sell", "exit", "hold"]

CANDIDATES: Final[tuple[dict[LabelAction, str], ...]] = (
    {"buy": "buy", "sell": "sell", "exit": "exit", "hold": "hold"},
    {"buy": "B", "sell": "S", "exit": "E", "hold": "H"},
)
"""Words where the tokenizer has each as one token, else letters."""


@dataclass(frozen=True, slots=True)
class Labels:
    """`ids` int32, shape (actions,), in the order of `texts`."""

    texts: dict[LabelAction, str]
    ids: TokenIds


def labels_of(tokenizer: Tokenizer) -> Labels:
    """Return the labels that `tokenizer` has as single, distinct tokens; raise ValueError when it has neither words nor letters."""
    for texts in CANDIDATES:
        encoded = tokenizer.encode_batch(list(texts.values()))
        ids = [int(one[0]) for one in encoded if len(one) == 1]
        if len(set(ids)) == len(texts):
            return Labels(texts, np.array(ids, dtype=np.int32))
    raise ValueError(
        "the tokenizer has neither buy, sell, exit and hold nor B, S, E and H as one token each, which mode flash asks for: "
        'set fusion.mode = "fast"'
    )


def question(labels: Labels) -> str:
    """Return the question whose answer is one label."""
    *before, last = (text if text == action else f"{text} for {action}" for action, text in labels.texts.items())
    return wording.FLASH_QUESTION.format(labels=f"{', '.join(before)} or {last}")
