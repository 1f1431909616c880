"""What the market did after a signal: the scorer's verdict on it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from schemas.base import DecimalPrice, Finite, Interval, Message, Symbol, TimeMs, Unit
from schemas.signal import Action, Mode, Source, Vision


class ExitReason(StrEnum):
    """Why a signal's paper position ended."""

    TARGET = "target"
    STOP = "stop"
    HORIZON = "horizon"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    UNFILLED = "unfilled"


class SignalOutcome(Message):
    """One per signal with action `buy` or `sell`; idempotent by `signal_id`."""

    signal_id: UUID = Field(strict=False, description="The signal that is judged.")
    symbol: Symbol
    interval: Interval
    mode: Mode = Field(description="How the model was asked: `fast`, or `deep` (thinking).")
    action: Action = Field(strict=False, description="The signal's action.")
    source: Source = Field(description="The signal's source.")
    vision: Vision = Field(description="The signal's vision field.")
    conviction: Unit = Field(description="The signal's conviction.")
    exit_reason: ExitReason = Field(strict=False, description="Why the paper position ended.")
    ts_entry_ms: TimeMs | None = Field(default=None, description="Event time of the paper position's opening; absent when unfilled.")
    ts_exit_ms: TimeMs
    entry: DecimalPrice | None = Field(default=None, description="The price it opened at; absent when unfilled.")
    exit: DecimalPrice | None = Field(default=None, description="The price it ended at; absent when unfilled.")
    return_net: Finite | None = Field(default=None, description="Fraction of the entry price, after costs; absent when unfilled.")
    max_favourable: Finite | None = Field(default=None, description="Best excursion as a fraction of the entry price.")
    max_adverse: Finite | None = Field(default=None, description="Worst excursion as a fraction of the entry price, negative.")
    bars_held: Annotated[int, Field(ge=0, description="Bars from opening to end.")]
