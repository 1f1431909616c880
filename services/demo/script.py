"""What the demo plays, and when: history, then phases of bars on one timeline in event time. Pure.

Bars that close together are spread over the time until the next ones, as symbols' bars never arrive in the same millisecond.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from typing import Final

from schemas import Candle
from services.core.settings import SettingsError

BURST_S: Final = 10.0
BURST_FACTOR: Final = 10.0
OUTAGE_S: Final = 3.0
RECOVERY_S: Final = 6.0


class Phase(StrEnum):
    """A part of the demo; each has its own span of event time."""

    PACED = "paced"
    BURST = "burst"
    OUTAGE = "outage"
    RECOVERY = "recovery"


@dataclass(frozen=True, slots=True)
class Act:
    """One phase with its bars, each with the seconds after the phase's start at which it is due, in order."""

    phase: Phase
    bars: tuple[tuple[float, Candle], ...]
    duration_s: float
    steps: int
    """Points of event time, which is bars a symbol for those that trade all along."""
    until_ms: int
    """Event time of its last bar."""


@dataclass(frozen=True, slots=True)
class Script:
    """All of it: `history` comes before the first phase, loaded without triggering."""

    history: tuple[Candle, ...]
    acts: tuple[Act, ...]

    def phase_at(self, ts_event_ms: int) -> Phase:
        """Return the phase that an event time belongs to; what lies after the last one belongs to it."""
        return next((act.phase for act in self.acts if ts_event_ms <= act.until_ms), self.acts[-1].phase)

    def act(self, phase: Phase) -> Act | None:
        """Return a phase's act, None when it is not played."""
        return next((act for act in self.acts if act.phase is phase), None)

    @property
    def candles(self) -> int:
        """Return how many bars are played after the history."""
        return sum(len(act.bars) for act in self.acts)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for: `pace` is bars a second a symbol; without `start` everything ends where the data ends."""

    bars: int
    pace: float
    _: KW_ONLY
    burst: bool
    outage: bool
    start: dt.date | None
    history_from: dt.date


def write_script(stocks: Mapping[str, Sequence[Candle]], wanted: Wanted) -> Script:
    """Return the script for `stocks` (each oldest first); raise SettingsError when the data are too short for it."""
    times = sorted({candle.ts_close_ms for candles in stocks.values() for candle in candles})
    phases = _phases(wanted)
    needed = sum(steps for _, steps, _ in phases)
    first = len(times) - needed if wanted.start is None else _first_from(times, wanted.start)
    if first < 1 or first + needed > len(times):
        played = "" if wanted.start is None else f" from {wanted.start}"
        raise SettingsError(
            f"{needed} bars a symbol are to be played{played}, and the data hold {max(0, len(times) - max(first, 1))} there "
            f"({_day(times[0])} to {_day(times[-1])}); ask for fewer --bars, a lower --pace (the burst takes ten times as many), "
            "--no-burst, or an earlier --start"
        )
    by_time: dict[int, list[tuple[int, Candle]]] = {}
    for place, candles in enumerate(stocks.values()):
        for candle in candles:
            by_time.setdefault(candle.ts_close_ms, []).append((place, candle))
    history_ms = _midnight_ms(wanted.history_from)
    history = tuple(candle for time in times[:first] if time >= history_ms for _, candle in by_time[time])
    acts = []
    for phase, steps, period_s in phases:
        span = times[first : first + steps]
        bars = [
            (step * period_s + place * period_s / len(stocks), candle) for step, time in enumerate(span) for place, candle in by_time[time]
        ]
        acts.append(Act(phase, tuple(bars), steps * period_s, steps, span[-1]))
        first += steps
    return Script(history, tuple(acts))


def _phases(wanted: Wanted) -> list[tuple[Phase, int, float]]:
    """Return each phase with its steps and the seconds from one to the next."""
    period_s = 1 / wanted.pace
    phases = [(Phase.PACED, wanted.bars, period_s)]
    if wanted.burst:
        phases.append((Phase.BURST, max(1, round(BURST_S * wanted.pace * BURST_FACTOR)), period_s / BURST_FACTOR))
    if wanted.outage:
        phases.append((Phase.OUTAGE, max(1, round(OUTAGE_S * wanted.pace)), period_s))
        phases.append((Phase.RECOVERY, max(1, round(RECOVERY_S * wanted.pace)), period_s))
    return phases


def _first_from(times: Sequence[int], start: dt.date) -> int:
    start_ms = _midnight_ms(start)
    return next((index for index, time in enumerate(times) if time >= start_ms), len(times))


def _midnight_ms(day: dt.date) -> int:
    return int(dt.datetime.combine(day, dt.time(), dt.UTC).timestamp() * 1000)


def _day(ts_ms: int) -> dt.date:
    return dt.datetime.fromtimestamp(ts_ms / 1000, dt.UTC).date()
