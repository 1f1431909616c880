"""What Aquiline publishes: strategy signals, and cancels of signals that no longer hold.

A consumer keeps the first body of a `signal_id`; a later one with the same id is a redelivery.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, TypeAdapter

from schemas.base import DecimalPrice, Interval, Label, Message, Name, Part, Symbol, TimeMs, Unit

Mode = Literal["flash", "fast", "deep"]
Vision = Literal["fresh", "stale", "absent"]
Source = Literal["llm", "rules", "simulator"]
LabelAction = Literal["buy", "sell", "exit", "hold"]
"""The actions that signals have probabilities of."""


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

    topic: str = Field(description="Aquiline's name of the topic, prefix included, whatever the broker calls it.")
    partition: Annotated[int, Field(ge=0, description="The partition.")]
    offset: Annotated[int, Field(ge=0, description="The offset in the partition.")]
    ts_ms: TimeMs = Field(description="The record's timestamp: when the broker appended it, where the topic says so.")
    ts_event_ms: TimeMs = Field(description="Event time of the record: the market time that it is about.")


class AsOf(Part):
    """The last record of each input that a decision rests on."""

    market: OffsetRef = Field(description="The last market-features record.")
    vision: OffsetRef | None = Field(default=None, description="The last vision-features record; absent when there is none to rest on.")
    tables: dict[Name, OffsetRef] | None = Field(
        default=None,
        description="The last record on the symbol of each input that workers read as a table (`notes`, `positions`); absent without any.",
    )

    def refs(self) -> dict[str, OffsetRef]:
        """Return the last record of each input by its name."""
        return {"market": self.market, **({} if self.vision is None else {"vision": self.vision}), **(self.tables or {})}


class _About(Message):
    """What signal and cancel share."""

    symbol: Symbol
    interval: Interval
    mode: Mode = Field(description="How the model was asked: `flash` (one token), `fast` (a short answer), or `deep` (thinking).")
    signal_id: UUID = Field(strict=False, description="Identity of the signal; a second body with the same one is a redelivery.")
    ts_decided_ms: TimeMs


class Signal(_About):
    """The model's view of one symbol, with its prices, its validity and what it rests on."""

    kind: Literal["signal"] = Field(default="signal", description="Distinguishes signals from cancels.")
    trigger_id: UUID = Field(strict=False, description="Identity of the trigger that it answers; the audit record has the same.")
    as_of: AsOf = Field(description="The input records that it rests on.")
    valid_until_ms: TimeMs = Field(description="The last instant to open a position.")
    action: Action = Field(
        strict=False,
        description="`buy` = want long; `sell` = want short; `exit` = close; `hold` = keep positions as they are; `abstain` = no view.",
    )
    abstain_reason: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="Why there is no view; only with `abstain`."
    )
    conviction: Unit | None = Field(
        default=None,
        description="An ordinal from 0 to 1, not a probability; in mode `flash` the probability of `action`. Absent when abstaining.",
    )
    probabilities: dict[LabelAction, Unit] | None = Field(
        default=None,
        description="How likely the model finds each action, summing to 1: in mode `flash` what it decides by, in mode `fast` what the engine says beside the answer, where it does.",
    )
    horizon_bars: Annotated[int, Field(ge=1, le=1000)] | None = Field(default=None, description="Number of bars that the view is for.")
    horizon_end_ms: TimeMs | None = Field(default=None, description="Event time at which the view ends.")
    ref_price: DecimalPrice = Field(description="The last close that the prices are measured from.")
    entry_type: Literal["market", "limit"] | None = Field(default=None, description="How to open: at once, or not beyond `entry`.")
    entry: DecimalPrice | None = Field(default=None, description="The worst acceptable price to open at.")
    stop: DecimalPrice | None = Field(default=None, description="The price at which the view is wrong.")
    target: DecimalPrice | None = Field(default=None, description="The price at which the view is fulfilled.")
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3,5}$", description="The currency that prices are in.")]
    vision: Vision = Field(description="Whether vision features of the last closed bar, older ones or none were in the prompt.")
    vision_age_ms: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Event time from the end of the vision features' window to the last closed bar; absent with `absent`.",
    )
    source: Source = Field(description="What answered: a language model, fixed rules, or the simulator.")
    degraded: bool = Field(description="True when a configured stand-in answered in place of the engine.")
    engine: Label = Field(description="The engine's name.")
    model: Annotated[str, Field(min_length=1, max_length=256, description="The model, as the engine names it.")]
    prompt_version: Label = Field(description="The version of the prompt's layout and wording.")
    prompt_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the prompt's int32 little-endian token ids.")]
    epoch: Annotated[
        str,
        Field(pattern=r"^[0-9a-f]{12}$", description="Identity of the span in which the symbol's prompt only grows."),
    ]
    prompt_tokens: Annotated[int, Field(ge=0, description="Tokens in the prompt.")]
    cached_tokens: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Prompt tokens that the engine already held; absent when it has not said so at publish.",
    )
    latency_ms: dict[str, float] = Field(description="Milliseconds by stage, from the record's timestamp to the decision.")


class Cancel(_About):
    """Withdraws the signal with this `signal_id`: open no position on it."""

    kind: Literal["cancel"] = Field(default="cancel", description="Distinguishes cancels from signals.")
    reason: CancelReason = Field(strict=False, description="Why the signal no longer holds.")
    detail: Annotated[str, Field(max_length=500, description="Details of the reason, for people.")] = ""


SignalMessage = Annotated[Signal | Cancel, Field(discriminator="kind")]
_signal_message: TypeAdapter[Signal | Cancel] = TypeAdapter(SignalMessage)


def decode_signal_message(value: bytes) -> Signal | Cancel:
    """Return the signal or cancel in `value`; raise pydantic.ValidationError when it is neither."""
    return _signal_message.validate_json(value)
