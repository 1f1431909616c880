"""A trigger's result, with everything that its audit record and spans contain; the decision fills it in as it proceeds."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas import AsOf, Outcome, Signal, Vision
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
    thought_tokens: int | None = None
    thought_cut: str | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    answering_ms: float = 0.0
    """From the engine's call to the answer's end, the rationale and a second attempt included."""

    def end(self, outcome: Outcome, reason: str, detail: str) -> None:
        """Say how the trigger ended, and why."""
        self.outcome, self.reason, self.detail = outcome, reason, detail
