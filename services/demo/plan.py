"""Which bars the demo plays, and when: history first, then phases in event time. Pure.

Symbols whose bars close together are spread over the time until the next close, because real bars never arrive in one millisecond.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas import Candle
from services.core.settings import SettingsError
from services.demo.options import Options

BURST_S: Final = 10.0
BURST_FACTOR: Final = 10.0
OUTAGE_S: Final = 3.0
RECOVERY_S: Final = 6.0
MODEL_S: Final = 90.0
"""The longest that the real model's act plays."""
_MODEL_HISTORY_BARS: Final = 100
"""More than a prompt of the real model shows."""


class Phase(StrEnum):
    """A part of the run; each covers its own span of event time."""

    PACED = "paced"
    BURST = "burst"
    OUTAGE = "outage"
    RECOVERY = "recovery"


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """One phase. `bars` are in order, each with the seconds after the phase's start at which it is published."""

    phase: Phase
    bars: tuple[tuple[float, Candle], ...]
    duration_s: float
    steps: int
    """Distinct closing times: bars of a symbol that trades throughout."""
    until_ms: int
    """Event time of the last bar."""
    in_step: bool
    """Each step's bars are published when the decisions on the step before have ended, for `duration_s` at most."""

    def title(self, permits: int) -> str:
        """Return the heading: what happens, and what to look for; the worker makes `permits` calls at once."""
        first = next((candle.ts_close_ms for _, candle in self.bars), self.until_ms)
        days = f"{day_of(first)} to {day_of(self.until_ms)}"
        rate, seconds = self.steps / self.duration_s, self.duration_s
        if self.in_step:
            return f"In step: {self.steps} bars a symbol, {days}; each waits until those before it are decided, {seconds:.0f} s at most"
        return {
            Phase.PACED: f"Paced: {self.steps} bars a symbol at {rate:g}/s, {days}, {permits} calls at once",
            Phase.BURST: f"Burst: {seconds:.0f} s at {rate:g} bars/s a symbol, {days}; newer bars replace queued ones (`conflated`)",
            Phase.OUTAGE: f"Engine outage: {seconds:.0f} s and a restart, {days}; triggers end `failed`, and no failure becomes a hold",
            Phase.RECOVERY: f"Recovery: {seconds:.0f} s, {days}; the prefixes are sent ahead to the engine's empty cache",
        }[self.phase]


@dataclass(frozen=True, slots=True)
class Plan:
    """`history` is loaded before the first phase and triggers nothing."""

    history: tuple[Candle, ...]
    phases: tuple[PhasePlan, ...]

    def phase_at(self, ts_event_ms: int) -> Phase:
        """Return the phase of an event time; times after the last phase belong to it."""
        return next((one.phase for one in self.phases if ts_event_ms <= one.until_ms), self.phases[-1].phase)


def plan_model(stocks: Mapping[str, Sequence[Candle]], options: Options, following: Plan, symbols: int) -> Plan:
    """Return the plan of the real model's act, which ends where `following` starts; raise SettingsError when the data are too short."""
    end_ms = following.phases[0].bars[0][1].ts_close_ms
    before = {symbol: [candle for candle in candles if candle.ts_close_ms < end_ms] for symbol, candles in stocks.items()}
    needed = options.model_bars + _MODEL_HISTORY_BARS
    chosen = [symbol for symbol, candles in before.items() if len(candles) >= needed][:symbols]
    if not chosen:
        raise SettingsError(
            f"the real model needs {needed} bars of a symbol before {day_of(end_ms)}; ask for fewer --model-bars or a later --start"
        )
    return _plan({symbol: before[symbol] for symbol in chosen}, options, [(Phase.PACED, options.model_bars, 0)], None)


def plan_load(stocks: Mapping[str, Sequence[Candle]], options: Options, *, outage: bool) -> Plan:
    """Return the plan of the act with load, burst and outage; raise SettingsError when the data are too short."""
    pace, period_s = options.pace, 1 / options.pace
    phases = [(Phase.PACED, options.bars, period_s)]
    if options.burst:
        phases.append((Phase.BURST, max(1, round(BURST_S * pace * BURST_FACTOR)), period_s / BURST_FACTOR))
    if outage:
        phases.extend((phase, max(1, round(s * pace)), period_s) for phase, s in ((Phase.OUTAGE, OUTAGE_S), (Phase.RECOVERY, RECOVERY_S)))
    return _plan(stocks, options, phases, options.start and options.start.date())


def _plan(
    stocks: Mapping[str, Sequence[Candle]], options: Options, phases: Sequence[tuple[Phase, int, float]], start: dt.date | None
) -> Plan:
    """Return a plan for `stocks` (bars oldest first) that begins on `start`, or ends with the data.

    A phase has steps and the seconds from one to the next: 0 when each waits for the decisions on the one before.
    """
    at: dict[int, list[tuple[float, Candle]]] = {}
    for place, candles in enumerate(stocks.values()):
        for candle in candles:
            at.setdefault(candle.ts_close_ms, []).append((place / len(stocks), candle))
    times = sorted(at)
    needed = sum(steps for _, steps, _ in phases)
    first = len(times) - needed if start is None else sum(day_of(time) < start for time in times)
    if first < 1 or first + needed > len(times):
        from_start = "" if start is None else f" from {start:%Y-%m-%d}"
        raise SettingsError(
            f"the demo needs {needed} bars a symbol{from_start}, and the data hold {max(0, len(times) - max(first, 1))} there "
            f"({day_of(times[0])} to {day_of(times[-1])}); ask for fewer --bars, a lower --pace (the burst takes ten times as many), "
            "--no-burst, or an earlier --start"
        )
    history = tuple(candle for time in times[:first] if day_of(time) >= options.history_from.date() for _, candle in at[time])
    planned = []
    for phase, steps, period_s in phases:
        span = times[first : first + steps]
        bars = tuple(((step + share) * period_s, candle) for step, time in enumerate(span) for share, candle in at[time])
        planned.append(PhasePlan(phase, bars, steps * period_s or MODEL_S, steps, span[-1], in_step=not period_s))
        first += steps
    return Plan(history, tuple(planned))


def day_of(ts_ms: int) -> dt.date:
    """Return the day of an event time, in UTC."""
    return dt.datetime.fromtimestamp(ts_ms / 1000, dt.UTC).date()
