"""A trigger's result, with everything that its audit record and spans contain; the decision fills it in as it proceeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas import MAX_ANSWER_CHARACTERS, MAX_ANSWER_CHUNKS, AsOf, Outcome, Signal, Vision
from services.fusion.prompt.builder import Prompt
from services.inference.engine import EngineInfo, Usage


@dataclass(slots=True)
class TriggerResult:
    """A trigger's outcome with its reason, and what it rested on."""

    outcome: Outcome
    reason: str | None = None
    detail: str = ""
    deadline_ms: int | None = None
    as_of: AsOf | None = None
    control_offset: int | None = None
    signal: Signal | None = None
    prompt: Prompt | None = None
    vision: Vision | None = None
    engine: EngineInfo | None = None
    usage: Usage | None = None
    cached_tokens: int | None = None
    answer: str | None = None
    answer_chunks: list[tuple[int, int]] = field(default_factory=list)
    """Of each piece of the answer that arrived: milliseconds since the prompt was built, and the answer's characters by then."""
    thought_tokens: int | None = None
    thought_cut: str | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    answering_ms: float = 0.0
    """From the engine's call to the answer's end, the rationale and a second attempt included."""

    def end(self, outcome: Outcome, reason: str, detail: str) -> None:
        """Say how the trigger ended, and why."""
        self.outcome, self.reason, self.detail = outcome, reason, detail


def coalesced(chunks: Sequence[tuple[int, int]]) -> list[list[int]] | None:
    """Return `chunks` as an audit record holds them: at most `MAX_ANSWER_CHUNKS`, the first and the last among them; None for none."""
    count = len(chunks)
    if not count:
        return None
    kept = (
        chunks if count <= MAX_ANSWER_CHUNKS else [chunks[at * (count - 1) // (MAX_ANSWER_CHUNKS - 1)] for at in range(MAX_ANSWER_CHUNKS)]
    )
    return [[ms, min(characters, MAX_ANSWER_CHARACTERS)] for ms, characters in kept]
