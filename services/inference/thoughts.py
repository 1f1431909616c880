"""Puts thought and answer back into one text, as engines that take ids give it: a thought, `</think>`, the answer.

Chat servers split thoughts off into a field of their own, or leave them in the content, or do not think at all.
"""

from __future__ import annotations

from services.inference.engine import THOUGHT_END


class Thoughts:
    """Reads the pieces of one answer. With `thinking` the text holds the thought and `</think>`; without, the answer alone."""

    def __init__(self, *, thinking: bool) -> None:
        """Start at the beginning of an answer."""
        self._thinking = thinking
        self._reasoned = False
        self._held = ""
        """Content that may still turn out to be the start of a thought."""
        self._answering = False

    def feed(self, reasoning: str, content: str) -> str:
        """Return what a piece adds to the text."""
        said = ""
        if reasoning and not self._answering:
            self._reasoned = True
            said = reasoning if self._thinking else ""
        if self._answering:
            return said + content
        self._held += content
        parts = self._parted() if content else None
        if parts is None:
            return said
        self._answering, self._held = True, ""
        thought, answer = parts
        return said + (thought + THOUGHT_END if self._thinking else "") + answer

    def finish(self) -> str:
        """Return what was held back, once the stream has ended."""
        held, self._held = self._held, ""
        return held

    def _parted(self) -> tuple[str, str] | None:
        """Return thought and answer of the content so far, None while it may all be thought."""
        start = self._held.lstrip()
        if self._reasoned or start.startswith("{"):
            return "", self._held
        # A template that opens the thought inside the prompt leaves only its end in the content.
        thought, closed, answer = self._held.partition(THOUGHT_END)
        return (thought, answer) if closed else None
