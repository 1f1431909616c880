"""Signals from a DataFrame: decisions of this package as they were, and signals of any other origin."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

import narwhals as nw
from narwhals.typing import IntoDataFrame
from pydantic import ValidationError

from aquiline._frames import NAME, since_1970_ms
from aquiline._results import PROBABILITIES
from schemas import Action, AsOf, Cancel, CancelReason, Instrument, OffsetRef, Signal
from services.backtest.feed import MODE
from services.core.calendar import SessionCalendar
from services.core.settings import Settings
from services.fusion.decide.prices import on_tick

_NEEDED: Final = ("symbol", "time", "action")
_TO_OPEN: Final = ("horizon_bars", "entry", "stop", "target")
_NONE: Final = "none"


def messages_of(frame: IntoDataFrame, instruments: Sequence[Instrument], interval: str, settings: Settings) -> list[Signal | Cancel]:
    """Return the signals and cancels in a frame, in order of time; raise ValueError naming row, column and value."""
    try:
        given = nw.from_native(frame, eager_only=True)
    except TypeError:
        raise ValueError(f"signals: a pandas, polars or pyarrow DataFrame is expected, not {type(frame).__name__}") from None
    for name in _NEEDED:
        if name not in given.columns:
            raise ValueError(f"signals: there is no column {name}; the columns are {', '.join(given.columns)}")
    known = {one.symbol: one for one in instruments}
    messages: list[Signal | Cancel] = []
    for number, row in enumerate(given.iter_rows(named=True)):
        values = {name: value for name, value in row.items() if not _missing(value)}
        if "action" not in values or values.get("outcome", "published") != "published":
            continue  # nothing was published
        try:
            messages += _messages(values, number, known, interval, settings)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{NAME}, row {number}: {'.'.join(map(str, first['loc']))} is {first['input']!r}: {first['msg']}") from None
        except ValueError as error:
            raise ValueError(f"{NAME}, row {number}: {error}") from None
    return sorted(messages, key=lambda one: one.ts_decided_ms)


def _messages(
    values: Mapping[str, Any], number: int, known: Mapping[str, Instrument], interval: str, settings: Settings
) -> list[Signal | Cancel]:
    symbol = values.get("symbol")
    instrument = known.get(str(symbol))
    if instrument is None:
        raise ValueError(f"symbol is {symbol!r}, of which there are no bars; the bars are of {', '.join(sorted(known))}")
    action = Action(values["action"])
    at_ms = _time(values, "time", None)
    if action in {Action.BUY, Action.SELL} and (missing := [name for name in _TO_OPEN if name not in values]):
        raise ValueError(f"{', '.join(missing)} missing: a signal to {action.value} is judged by its {', '.join(_TO_OPEN)}")
    interval = str(values.get("interval", interval))
    decided_ms = _time(values, "decided", at_ms)
    identity = {"symbol": symbol, "interval": interval, "mode": values.get("mode", "fast"), "ts_decided_ms": decided_ms}
    identity |= {"schema_version": 1, "run_mode": MODE, "signal_id": _id(values, "signal_id", f"{number}")}
    signal = Signal.model_validate(
        identity
        | _view(values, instrument, interval, at_ms)
        | {
            "action": action,
            "trigger_id": _id(values, "trigger_id", f"{number}/trigger"),
            "as_of": AsOf(market=OffsetRef(topic=NAME, partition=0, offset=number, ts_ms=at_ms, ts_event_ms=at_ms)),
            "valid_until_ms": _time(values, "valid_until", at_ms + settings.fusion.entry_validity(interval)),
            "currency": instrument.currency,
            "vision": values.get("vision", "absent"),
            "source": values.get("source", "rules"),
            # What a judge does not read.
            "degraded": False,
            "engine": _NONE,
            "model": _NONE,
            "prompt_version": _NONE,
            "prompt_hash": "0" * 64,
            "epoch": "0" * 12,
            "prompt_tokens": 0,
            "latency_ms": {},
        }
    )
    if "cancelled" not in values:
        return [signal]
    cancelled_ms = _time(values, "cancelled_at", decided_ms)
    return [signal, Cancel.model_validate(identity | {"ts_decided_ms": cancelled_ms, "reason": CancelReason(values["cancelled"])})]


def _view(values: Mapping[str, Any], instrument: Instrument, interval: str, at_ms: int) -> dict[str, Any]:
    """Return what the signal says: prices on the tick, the horizon and its end by the instrument's calendar."""
    prices = {name: on_tick(float(values[name]), instrument) for name in ("ref_price", "entry", "stop", "target") if name in values}
    view: dict[str, Any] = {"ref_price": prices.get("entry", "0"), **prices}
    if "horizon_bars" in values:
        bars = int(values["horizon_bars"])
        end_ms = SessionCalendar.of(instrument.calendar).next_closes(interval, at_ms, max(1, bars))[-1]
        view |= {"horizon_bars": bars, "horizon_end_ms": _time(values, "horizon_end", end_ms)}
    if "entry" in values:
        view["entry_type"] = values.get("entry_type", "market")
    view["conviction"] = float(values.get("conviction", 0.5))
    chances = {action: float(values[name]) for name, action in PROBABILITIES.items() if name in values}
    return view | ({"probabilities": chances} if chances else {})


def _time(values: Mapping[str, Any], name: str, otherwise: int | None) -> int:
    value = values.get(name, otherwise)
    if not isinstance(value, int | dt.datetime):
        raise ValueError(f"{name} is {value!r}; a time with a zone, or milliseconds since 1970, is expected")  # noqa: TRY004
    found = since_1970_ms(value, name)
    assert found is not None  # noqa: S101 - it is a time
    return found


def _id(values: Mapping[str, Any], name: str, otherwise: str) -> UUID:
    return UUID(str(values[name])) if name in values else uuid5(NAMESPACE_URL, f"aquiline:{NAME}/{otherwise}")


def _missing(value: Any) -> bool:
    return value is None or value != value  # noqa: PLR0124 - NaN and NaT are not equal to themselves
