"""The options of `aquiline demo`. Plain values, so that `--help` imports none of the services."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MODEL_BARS: Final = 16
"""Of two symbols, so 32 decisions: a quiet core takes some two seconds for each."""
BARS: Final = 36


class Vision(StrEnum):
    """Where vision features come from."""

    RECORDED = "recorded"
    LIVE = "live"
    LATE = "late"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Options:
    """One field an option, of its name; `aquiline demo --help` describes each."""

    symbols: str
    model_bars: int
    bars: int
    pace: float
    start: dt.date | None
    history_from: dt.date
    burst: bool
    outage: bool
    vision: Vision
    intervals: str
    window: int
    epoch: int
    permits: int
    min_gap_bars: int
    bus: str
    redis: str
    engine: str | None
    time_scale: float
    assignments: tuple[str, ...]
    seed: int
    console: bool
    strategy: str | None
    verbose: bool
