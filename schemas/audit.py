"""One audit record per trigger: how it ended and everything its decision rested on.

Each record carries its own checksum, so that damage after export, copying or a year of storage is detected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from pydantic import Field

from schemas.base import Interval, Label, Message, Name, Symbol, TimeMs
from schemas.signal import Action, AsOf, Mode, OffsetRef, Source, Vision

LATENCY_STAGES: Final = ("fold", "vision_wait", "queue", "prompt", "first_token", "decision", "publish")
"""The keys of `latency_ms` in the order in which a trigger passes them."""
MAX_ANSWER_CHARACTERS: Final = 65_536
MAX_ANSWER_CHUNKS: Final = 64
_CHECKSUM_DIGITS: Final = 16


AnswerChunk = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]
"""Milliseconds and characters."""


class Outcome(StrEnum):
    """How a trigger ended; every trigger has exactly one."""

    PUBLISHED = "published"
    CONFLATED = "conflated"
    STALE = "stale"
    BLOCKED = "blocked"
    FAILED = "failed"


class AuditRecord(Message):
    """How one trigger ended."""

    trigger_id: UUID = Field(strict=False, description="Identity of the trigger. Count outcomes distinct by it.")
    trigger_kind: Name = Field(description="Why the model was to be asked: `closed_bar`, `vision`, `move`.")
    trigger: OffsetRef = Field(description="The record that made the trigger.")
    symbol: Symbol
    interval: Interval
    mode: Mode = Field(description="How the model was to be asked: `fast`, or `deep` (thinking).")
    outcome: Outcome = Field(strict=False, description="How the trigger ended.")
    reason: Name | None = Field(default=None, description="The rule or fault behind an outcome other than `published`.")
    detail: Annotated[str, Field(max_length=2000, description="Details of the reason, for people.")] = ""
    ts_done_ms: TimeMs
    deadline_ms: TimeMs | None = Field(default=None, description="Last moment to hand the signal to the producer.")
    signal_id: UUID | None = Field(default=None, strict=False, description="The signal that the trigger led to.")
    action: Action | None = Field(default=None, strict=False, description="The action that the model answered.")
    as_of: AsOf | None = Field(default=None, description="Absent when the model was not asked.")
    control_offset: Annotated[int, Field(ge=-1)] | None = Field(
        default=None, description="The last `control` record that was read; -1 when there is none."
    )
    config_version: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", description="Hash of the settings that shape a prompt.")]
    prompt_version: Label | None = Field(default=None, description="The version of the prompt's layout and wording.")
    prompt_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="SHA-256 of the prompt's int32 little-endian token ids."
    )
    epoch: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")] | None = Field(
        default=None, description="Identity of the span in which the symbol's prompt only grows."
    )
    prompt_tokens: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Tokens in the prompt.")
    cached_tokens: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Prompt tokens that the engine already held.")
    output_tokens: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Tokens in the answer.")
    accept_length: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Mean tokens a verification step, bonus token included."
    )
    vision: Vision | None = Field(
        default=None, description="Whether vision features of the last closed bar, older ones or none were in the prompt."
    )
    source: Source | None = Field(default=None, description="What gave the answer.")
    engine: Label | None = Field(default=None, description="The engine's name.")
    model: Annotated[str, Field(max_length=256)] | None = Field(default=None, description="The model, as the engine names it.")
    latency_ms: dict[str, float] = Field(default_factory=dict, description="Milliseconds by stage.")
    answer: Annotated[str, Field(max_length=MAX_ANSWER_CHARACTERS)] | None = Field(
        default=None, description="The model's whole answer, rationale included."
    )
    answer_chunks: Annotated[list[AnswerChunk], Field(max_length=MAX_ANSWER_CHUNKS)] | None = Field(
        default=None,
        description="How the answer streamed, in order: milliseconds since the `prompt` stage ended, and the characters of `answer` "
        "that had arrived by then. Absent when nothing streamed.",
    )
    thought_tokens: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Tokens of the thought before the answer, in mode `deep` on an engine that takes token ids."
    )
    thought_cut: Label | None = Field(
        default=None, description="Which budget cut the thought: `tokens`, or `deadline`. Absent when the model ended it."
    )
    checksum: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = Field(
        default=None,
        description="The first 16 hex digits of the SHA-256 of the other fields, as JSON with sorted keys and no white space.",
    )

    @property
    def total_ms(self) -> float:
        """Return the milliseconds from the record's timestamp to the signal's acknowledgement."""
        return sum(self.latency_ms.get(stage, 0.0) for stage in LATENCY_STAGES)

    def encode(self) -> bytes:
        """Return the record as UTF-8 JSON, with its checksum."""
        values = self.model_dump(mode="python", exclude_none=True, exclude={"checksum"})
        return orjson.dumps(values | {"checksum": _checksum(values)})


def is_intact(value: bytes) -> bool:
    """Return whether the audit record in `value` (UTF-8 JSON) is as it was written; one without a checksum is not."""
    values = orjson.loads(value)
    stated: object = values.pop("checksum", None)
    return stated == _checksum(values)


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()[:_CHECKSUM_DIGITS]
