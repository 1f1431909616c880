"""What Aquiline publishes: strategy signals, and cancels of signals that no longer hold.

A consumer keeps the first body of a `signal_id`; a later one with the same id is a redelivery.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, TypeAdapter

from schemas.base import DecimalPrice, Interval, Label, Message, Part, Symbol, TimeMs, Unit

Mode = Literal["fast", "deep"]
Vision = Literal["fresh", "stale", "absent"]
Source = Literal["llm", "rules", "simulator"]


class Action(StrEnum):
    """What the model wants held."""

    BUY = "buy"
    SELL = "sell"
    EXIT = "exit"
    HOLD = "hold"
    ABSTAIN = "abstain"


class CancelReason(StrEnum):
    """Why a published signal no longer holds."""

    HALTED = "halted"
    REVISED = "revised"
    SPLIT = "split"
    LATE_ACK = "late_ack"
    SUPERSEDED = "superseded"


class OffsetRef(Part):
    """A record of an input topic."""

    topic: str
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    ts_ms: TimeMs = Field(description="The record's timestamp: when the broker appended it, where the topic says so.")
    ts_event_ms: TimeMs = Field(description="The time in the market that the record speaks of.")


class AsOf(Part):
    """The last records of both inputs that a decision rests on."""

    market: OffsetRef
    vision: OffsetRef | None = None


class _About(Message):
    """What signal and cancel share."""

    symbol: Symbol
    interval: Interval
    mode: Mode
    signal_id: UUID = Field(strict=False)
    ts_decided_ms: TimeMs


class Signal(_About):
    """The model's view of one symbol, with its prices, its validity and what it rests on."""

    kind: Literal["signal"] = "signal"
    trigger_id: UUID = Field(strict=False)
    as_of: AsOf
    valid_until_ms: TimeMs = Field(description="The last instant to open a position.")
    action: Action = Field(
        strict=False,
        description="`buy` = want long; `sell` = want short; `exit` = close; `hold` = leave everything standing; `abstain` = no view.",
    )
    abstain_reason: Annotated[str, Field(max_length=200)] | None = None
    conviction: Unit | None = Field(
        default=None, description="An ordinal from 0 to 1, not a probability; absent when abstaining."
    )
    horizon_bars: Annotated[int, Field(ge=1, le=1000)] | None = None
    horizon_end_ms: TimeMs | None = Field(default=None, description="Event time at which the view ends.")
    ref_price: DecimalPrice = Field(description="The last close that the prices are measured from.")
    entry_type: Literal["market", "limit"] | None = None
    entry: DecimalPrice | None = Field(default=None, description="The worst acceptable price to open at.")
    stop: DecimalPrice | None = None
    target: DecimalPrice | None = None
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3,5}$")]
    vision: Vision
    vision_age_ms: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Event time from the end of the vision features' window to the last closed bar; absent with `absent`.",
    )
    source: Source
    degraded: bool = Field(description="True when a configured stand-in answered in place of the engine.")
    engine: Label
    model: Annotated[str, Field(min_length=1, max_length=256)]
    prompt_version: Label
    prompt_hash: Annotated[
        str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the prompt's int32 little-endian token ids.")
    ]
    epoch: Annotated[
        str,
        Field(pattern=r"^[0-9a-f]{12}$", description="Identity of the span in which the symbol's prompt only grows."),
    ]
    prompt_tokens: Annotated[int, Field(ge=0)]
    cached_tokens: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Prompt tokens that the engine already held; absent when it has not said so at publish.",
    )
    latency_ms: dict[str, float] = Field(description="Milliseconds by stage, from the record's timestamp to the decision.")


class Cancel(_About):
    """Withdraws the signal with this `signal_id`: open no position on it."""

    kind: Literal["cancel"] = "cancel"
    reason: CancelReason = Field(strict=False)
    detail: Annotated[str, Field(max_length=500)] = ""


SignalMessage = Annotated[Signal | Cancel, Field(discriminator="kind")]
_signal_message: TypeAdapter[Signal | Cancel] = TypeAdapter(SignalMessage)


def decode_signal_message(value: bytes) -> Signal | Cancel:
    """Return the signal or cancel in `value`; raise pydantic.ValidationError when it is neither."""
    return _signal_message.validate_json(value)
