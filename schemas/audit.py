"""One audit record per trigger: how it ended and everything its decision rested on."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from schemas.base import Interval, Label, Message, Name, Symbol, TimeMs
from schemas.signal import Action, AsOf, Mode, OffsetRef, Source, Vision


class Outcome(StrEnum):
    """How a trigger ended; every trigger has exactly one."""

    PUBLISHED = "published"
    CONFLATED = "conflated"
    STALE = "stale"
    BLOCKED = "blocked"
    FAILED = "failed"


class AuditRecord(Message):
    """How one trigger ended."""

    trigger_id: UUID = Field(strict=False)
    trigger_kind: Name = Field(description="The reason to ask: `closed_bar`, `vision`, `move`.")
    trigger: OffsetRef = Field(description="The record that made the trigger.")
    symbol: Symbol
    interval: Interval
    mode: Mode
    outcome: Outcome = Field(strict=False)
    reason: Name | None = Field(default=None, description="The rule or fault behind an outcome other than `published`.")
    detail: Annotated[str, Field(max_length=2000)] = ""
    ts_done_ms: TimeMs
    deadline_ms: TimeMs | None = None
    signal_id: UUID | None = Field(default=None, strict=False)
    action: Action | None = Field(default=None, strict=False)
    as_of: AsOf | None = Field(default=None, description="Absent when the model was not asked.")
    control_offset: Annotated[int, Field(ge=-1)] | None = Field(
        default=None, description="The last `control` record that was read; -1 when there is none."
    )
    config_version: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", description="Hash of the settings that shape a prompt.")]
    prompt_version: Label | None = None
    prompt_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    epoch: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")] | None = None
    prompt_tokens: Annotated[int, Field(ge=0)] | None = None
    cached_tokens: Annotated[int, Field(ge=0)] | None = None
    output_tokens: Annotated[int, Field(ge=0)] | None = None
    accept_length: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Mean tokens a verification step, bonus token included."
    )
    vision: Vision | None = None
    source: Source | None = None
    engine: Label | None = None
    model: Annotated[str, Field(max_length=256)] | None = None
    latency_ms: dict[str, float] = Field(default_factory=dict, description="Milliseconds by stage.")
    answer: Annotated[str, Field(max_length=65_536)] | None = Field(
        default=None, description="The model's whole answer, rationale included."
    )
