"""What one decision asks: the book as it is, in words, laid out as a prompt. A worker asks it, and `aquiline replay` asks it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from schemas import Mode
from services.core.settings import FusionSettings
from services.fusion.decide.answer import ANSWER_SCHEMA
from services.fusion.prompt.builder import Plan, PromptBuilder
from services.fusion.prompt.wording import facts, tail
from services.fusion.state.book import Book, SeenVision
from services.inference.engine import Sampling


class Question(NamedTuple):
    """A question about a book, which may go on changing."""

    plan: Plan
    vision: SeenVision
    view: Mapping[str, float]
    """What the prompt says as plain values."""


def question(prompts: PromptBuilder, book: Book, interval: str, mode: Mode) -> Question:
    """Return what is asked about `book` as it is now."""
    vision = book.seen_vision(interval)
    view = facts(book, interval, vision)
    return Question(prompts.plan(book, interval, mode, tail(book, interval, vision, view)), vision, view)


def sampling(settings: FusionSettings, mode: Mode) -> Sampling:
    """Return how an answer in `mode` is sampled: a grammar would forbid the thought before a deep one."""
    deep = mode == "deep"
    return Sampling(
        settings.deep_max_new_tokens if deep else settings.max_new_tokens,
        settings.temperature,
        ANSWER_SCHEMA if settings.grammar and not deep else None,
    )
