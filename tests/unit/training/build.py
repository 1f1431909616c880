"""Tiny models and made-up examples, small enough to train in a test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.training.examples import About, Example, Part

VOCABULARY = 48


def example(number: int, *, part: Part = "train", tokens: int = 24, answer: int = 8, vocabulary: int = VOCABULARY) -> Example:
    """Return a prompt of random ids whose answer repeats one of its tokens, so that there is something to learn."""
    generator = np.random.default_rng([number, part == "test"])
    ids = generator.integers(3, vocabulary, tokens).astype(np.int32)
    ids[-answer:] = [3 + (int(ids[0]) + step) % 4 for step in range(answer)]
    taught = np.zeros(tokens, dtype=bool)
    taught[-answer:] = True
    decision = taught.copy()
    decision[-answer // 2 :] = False
    about = About(str(number), part, "line", "AAPL.XNAS", "2009-01-02T21:00:00.000+00:00", "2k", "buy", "buy", True, 0.01)
    return Example(about, ids, taught, decision)


def examples(count: int, *, part: Part = "train") -> Sequence[Example]:
    return [example(number, part=part, tokens=20 + number % 7) for number in range(count)]
