"""The simulator's answers: it parses the facts in a prompt's tail, applies the fixed rules, and writes the result as a model would.

It reads only the prompt: a worker that builds a wrong prompt gets a wrong answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.core.tokenizer import Tokenizer
from services.inference.engine import THOUGHT_END, TokenIds
from services.inference.rules import decide, written
from services.inference.simulator.prompt_facts import facts_of

VOICE: Final = "Simulator's fixed rule, no model"
_RULES_TOKENS: Final = 3_000
"""A prompt's beginning, which holds the rules: they explain the facts in mode `flash`, which have no names."""
_TAIL_TOKENS: Final = 1_500
_OTHER_TOKENS: Final = 0.001
"""The probability of all tokens that are no label."""
_OPENED_THOUGHT: Final = re.compile(r"<think>\s*\Z")


@dataclass(frozen=True, slots=True)
class Answer:
    """`text`, and its ids with the end token, int32, shape (tokens,)."""

    text: str
    ids: TokenIds

    def text_at(self, tokens: int) -> str:
        """Return what the first `tokens` tokens spell, taking all to be equally long, the end token empty."""
        spelling = max(1, self.ids.size - 1)
        return self.text[: len(self.text) * min(tokens, spelling) // spelling]


class Author:
    """Writes answers with a tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Write with `tokenizer`; raise ValueError when it has no end token that is known here."""
        self._tokenizer = tokenizer
        self._end = np.array([_end_id(tokenizer)], dtype=np.int32)
        # Decoded once for each instrument and epoch.
        self._rules = lru_cache(maxsize=64)(lambda ids: tokenizer.decode(np.frombuffer(ids, dtype=np.int32)))

    def answer(self, input_ids: TokenIds, stop: str | None = None, regex: str | None = None) -> Answer:
        """Return the answer to a prompt, a function of its facts and of what it must match; it ends before the text `stop`."""
        tail, view = self._read(input_ids)
        decision = decide(view, voice=VOICE)
        text = written(decision, regex)
        if _OPENED_THOUGHT.search(tail):
            text = f"{_thought(view, decision['action'])}\n{THOUGHT_END}\n\n{text}"
        if stop:
            text = text.partition(stop)[0]
        return Answer(text, np.concatenate([self._tokenizer.encode(text), self._end]))

    def scores(self, input_ids: TokenIds, labels: TokenIds) -> NDArray[np.float64]:
        """Return log-probabilities of label tokens, float64, shape (labels,).

        The first label that the rules' action starts with gets the more the higher the conviction; the others share the rest.
        """
        decision = decide(self._read(input_ids)[1], voice=VOICE)
        names = [self._tokenizer.decode([label]).strip().lower() for label in labels.tolist()]
        meant = next((at for at, name in enumerate(names) if name and decision["action"].startswith(name)), None)
        if meant is None:
            return np.full(labels.size, np.log(_OTHER_TOKENS / labels.size))
        most = (0.5 + decision.get("conviction", 50) / 250) * (1 - _OTHER_TOKENS)
        probabilities = np.full(labels.size, (1 - _OTHER_TOKENS - most) / max(1, labels.size - 1))
        probabilities[meant] = most
        logprobs: NDArray[np.float64] = np.log(probabilities)
        return logprobs

    def _read(self, input_ids: TokenIds) -> tuple[str, dict[str, float]]:
        tail = self._tokenizer.decode(input_ids[-_TAIL_TOKENS:])
        return tail, facts_of(tail, lambda: self._rules(input_ids[:_RULES_TOKENS].tobytes()))


def _thought(view: dict[str, float], action: str) -> str:
    facts = " ".join(f"{name} is {value:g}." for name, value in view.items())
    return f"This is the simulator; it does not think, it applies a fixed rule. The prompt's tail says: {facts or 'nothing.'} So {action}."


def _end_id(tokenizer: Tokenizer) -> int:
    for token in ("<|im_end|>", "</s>", "<|endoftext|>"):
        try:
            return tokenizer.special_id(token)
        except ValueError:
            continue
    raise ValueError("the simulator's tokenizer has none of <|im_end|>, </s> and <|endoftext|>; give it another with --tokenizer")
