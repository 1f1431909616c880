"""How long the engine takes to answer, as its last answers show: from the prompt tokens that it computes first, and its decoding.

Pure: the caller passes the time. A question's time to the first token grows with the uncached tokens of its own prompt and of those
that were asked before it and have no first token yet; a line is fitted to the last questions. What follows is the mean time from the
first token to the decision.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from schemas import Mode

_KEPT: Final = 0.9
"""Weight that an observation keeps with each one after it: the last ten count for two thirds."""

_MARGIN: Final = 2.0
"""Mean errors that are added to an expected time. Of normally distributed errors 95 % are smaller than that."""

_ANSWERS: Final = 32
"""Answers among which the quickest is sought."""


class Line:
    """The line y = a + b x, neither a nor b below 0, that fits the last points best; points lose weight as more come."""

    def __init__(self) -> None:
        """Start without points."""
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

    def add(self, x: float, y: float) -> None:
        """Take a point, both of its coordinates at least 0."""
        self._weight = self._weight * _KEPT + 1
        self._x = self._x * _KEPT + x
        self._y = self._y * _KEPT + y
        self._xx = self._xx * _KEPT + x * x
        self._xy = self._xy * _KEPT + x * y

    def at(self, x: float) -> float | None:
        """Return y at `x`, None without points."""
        if not self._weight:
            return None
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        spread = self._xx / self._weight - mean_x * mean_x
        slope = (self._xy / self._weight - mean_x * mean_y) / spread if spread > 1e-9 * self._xx else 0.0
        if slope <= 0:
            return mean_y
        if slope * mean_x > mean_y:
            return self._xy / self._xx * x
        return mean_y + slope * (x - mean_x)


class Mean:
    """The mean of the last values, each of which loses weight as more come."""

    def __init__(self) -> None:
        """Start without values."""
        self._weight = self._sum = 0.0

    def add(self, value: float) -> None:
        """Take a value."""
        self._weight = self._weight * _KEPT + 1
        self._sum = self._sum * _KEPT + value

    @property
    def value(self) -> float | None:
        """Return the mean, None without values."""
        return self._sum / self._weight if self._weight else None


@dataclass(slots=True)
class _Question:
    mode: Mode
    warm: bool
    tokens: float
    ahead: float
    begun_ms: float
    expected_ms: float | None
    """Without the margin."""
    first_ms: float | None = None


class EnginePace:
    """The questions under way, and what the last ones have shown.

    A question is `warm` when the engine should hold its prefix. How many tokens are computed for a warm one and for another is learned
    from what the engine said of the last ones of its kind, so that an engine that evicts prefixes is soon expected to do so.
    """

    def __init__(self, deep_answer_ms: float) -> None:
        """Start without knowledge: nothing is expected then. A thought is cut `deep_answer_ms` before the deadline."""
        self._deep_answer_ms = deep_answer_ms
        self._first_token = Line()
        self._decoding: dict[Mode, Mean] = {}
        self._tokens = {True: Mean(), False: Mean()}
        self._answers: dict[tuple[Mode, bool], deque[float]] = {}
        self._error = Mean()
        self._under_way: dict[UUID, _Question] = {}

    def needed_ms(self, mode: Mode, *, warm: bool) -> float | None:
        """Return how long a question that is asked now takes at most, as far as the last ones tell; None when they do not.

        Beside others it is the expected time with a margin. Alone it is the quickest of the last answers of its kind: an engine that was
        slow a moment ago is tried with one question at a time.
        """
        if not self._under_way:
            return min(self._answers.get((mode, warm), ()), default=None)
        expected_ms = self._expected_ms(mode, warm=warm)
        return None if expected_ms is None else expected_ms + _MARGIN * (self._error.value or 0.0)

    def begin(self, question: UUID, mode: Mode, now_ms: float, *, warm: bool) -> None:
        """Count a question that is asked now."""
        expected_ms = self._expected_ms(mode, warm=warm)
        tokens = self._tokens[warm].value or 0.0
        self._under_way[question] = _Question(mode, warm, tokens, self._ahead, now_ms, expected_ms)

    def first_token(self, question: UUID, now_ms: float) -> None:
        """Note that the engine has computed a question's prompt."""
        asked = self._under_way.get(question)
        if asked is not None and asked.first_ms is None:
            asked.first_ms = now_ms

    def answered(self, question: UUID, now_ms: float, uncached: int) -> None:
        """Learn from a question whose decision is there; `uncached` are the tokens that were computed for it."""
        asked = self._under_way.pop(question, None)
        if asked is None or asked.first_ms is None:
            return
        self._tokens[asked.warm].add(uncached)
        self._first_token.add(asked.ahead + uncached, asked.first_ms - asked.begun_ms)
        if asked.mode == "deep":
            return
        self._decoding.setdefault(asked.mode, Mean()).add(now_ms - asked.first_ms)
        took_ms = now_ms - asked.begun_ms
        self._answers.setdefault((asked.mode, asked.warm), deque(maxlen=_ANSWERS)).append(took_ms)
        if asked.expected_ms is not None:
            self._error.add(abs(took_ms - asked.expected_ms))

    def timed_out(self, question: UUID, now_ms: float) -> None:
        """Learn from a question whose deadline passed: it would have taken longer than that."""
        asked = self._under_way.pop(question, None)
        if asked is None:
            return
        waited_ms = now_ms - asked.begun_ms
        if asked.first_ms is None:
            self._first_token.add(asked.ahead + asked.tokens, waited_ms)
        elif asked.mode != "deep":
            self._decoding.setdefault(asked.mode, Mean()).add(now_ms - asked.first_ms)
        if asked.expected_ms is not None:
            self._error.add(max(0.0, waited_ms - asked.expected_ms))

    def dropped(self, question: UUID) -> None:
        """Forget a question that ended without telling anything: blocked, failed, or already learned from."""
        self._under_way.pop(question, None)

    @property
    def _ahead(self) -> float:
        return sum(asked.tokens for asked in self._under_way.values() if asked.first_ms is None)

    def _expected_ms(self, mode: Mode, *, warm: bool) -> float | None:
        tokens = self._tokens[warm].value
        first_ms = None if tokens is None else self._first_token.at(self._ahead + tokens)
        decoding_ms = self._deep_answer_ms if mode == "deep" else self._decoding.get(mode, Mean()).value
        return None if first_ms is None or decoding_ms is None else first_ms + decoding_ms
