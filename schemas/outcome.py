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

    signal_id: UUID = Field(strict=False)
    symbol: Symbol
    interval: Interval
    mode: Mode
    action: Action = Field(strict=False)
    source: Source
    vision: Vision
    conviction: Unit
    exit_reason: ExitReason = Field(strict=False)
    ts_entry_ms: TimeMs | None = None
    ts_exit_ms: TimeMs
    entry: DecimalPrice | None = None
    exit: DecimalPrice | None = None
    return_net: Finite | None = Field(default=None, description="Fraction of the entry price, after costs; absent when unfilled.")
    max_favourable: Finite | None = Field(default=None, description="Best excursion as a fraction of the entry price.")
    max_adverse: Finite | None = Field(default=None, description="Worst excursion as a fraction of the entry price, negative.")
    bars_held: Annotated[int, Field(ge=0)]
