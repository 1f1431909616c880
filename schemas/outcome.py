"""What the market did after a signal: the scorer's verdict on it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from schemas.base import DecimalPrice, Finite, Interval, Message, Part, Symbol, TimeMs, Unit
from schemas.signal import Action, LabelAction, Mode, Source, Vision


class ExitReason(StrEnum):
    """Why a signal's paper position ended."""

    TARGET = "target"
    STOP = "stop"
    HORIZON = "horizon"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    UNFILLED = "unfilled"


class Order(Part):
    """The order behind a signal and what trading it costs: enough to place the same order at another time."""

    entry_type: Literal["market", "limit"] = Field(description="How the position was to be opened.")
    ref_price: DecimalPrice = Field(description="The last close that the levels were measured from.")
    entry: DecimalPrice = Field(description="The worst acceptable price to open at.")
    stop: DecimalPrice = Field(description="The stop.")
    target: DecimalPrice = Field(description="The target.")
    horizon_bars: Annotated[int, Field(ge=1, description="Number of bars that the view was for.")]
    ts_stands_ms: TimeMs = Field(description="Event time at which the last bar closed that the signal rests on.")
    ts_from_ms: TimeMs = Field(description="Event time from which the order could be filled.")
    ts_until_ms: TimeMs = Field(description="Event time until which a position could be opened.")
    ts_horizon_ms: TimeMs | None = Field(
        default=None, description="Event time at which the view ended; absent from scorers before it was recorded."
    )
    tick: DecimalPrice | None = Field(
        default=None, description="What the market had to trade beyond a limit or target to fill it; absent when a touch was enough."
    )
    cost_bps: Annotated[float, Field(ge=0, allow_inf_nan=False, description="Cost of each side, in basis points of its price.")]
    slippage_bps: Annotated[float, Field(ge=0, allow_inf_nan=False, description="Slippage of each market fill, in basis points.")]
    fee: Annotated[float, Field(ge=0, allow_inf_nan=False, description="Cost of each side beside that, in units of the price.")] = 0.0


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
    probabilities: dict[LabelAction, Unit] | None = Field(default=None, description="The signal's probabilities; absent where it had none.")
    brier: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        default=None,
        description="Squared distance of the action's probability from what happened: 1 when the position completed with a gain, else 0. "
        "Absent without probabilities, or when the position was not opened or ended early.",
    )
    log_loss: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Natural logarithm of that probability's inverse; absent like `brier`."
    )
    exit_reason: ExitReason = Field(strict=False, description="Why the paper position ended.")
    unfilled_reason: Literal["invalid"] | None = Field(
        default=None, description="With `unfilled`: `invalid` when the entry would have opened beyond its stop."
    )
    unscored_reason: Literal["suspected_split"] | None = Field(
        default=None,
        description="With `cancelled`, after it was opened: `suspected_split` when the price jumped while it was open and neither a split "
        "nor a correction explained that by the end of the horizon. Entry is present; exit and return are absent.",
    )
    ts_entry_ms: TimeMs | None = Field(default=None, description="Event time of the paper position's opening; absent when unfilled.")
    ts_exit_ms: TimeMs
    entry: DecimalPrice | None = Field(default=None, description="The price it opened at; absent when unfilled.")
    exit: DecimalPrice | None = Field(default=None, description="The price it ended at; absent when unfilled.")
    return_net: Finite | None = Field(default=None, description="Fraction of the entry price, after costs; absent when unfilled.")
    max_favourable: Finite | None = Field(default=None, description="Best excursion as a fraction of the entry price.")
    max_adverse: Finite | None = Field(default=None, description="Worst excursion as a fraction of the entry price, negative.")
    bars_held: Annotated[int, Field(ge=0, description="Bars from opening to end.")]
    order: Order | None = Field(default=None, description="What was ordered; absent from scorers before it was recorded.")
