"""Selects what the report needs from outcomes, bars and signals, whether they come from files or topics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from schemas import Action, Candle, Restatement, Signal, SignalOutcome, interval_ms
from services.scoring.report import ReportBar

_SHOWN: Final = 4
_BARS_BEFORE: Final = 30
"""Bars before a signal that the report needs: the range of fourteen, and those that nights and holidays leave out."""


@dataclass(frozen=True, slots=True)
class OutcomeFilter:
    """Selects outcomes that ended from `since_ms` to before `until_ms`, of `symbols` (all when empty)."""

    since_ms: int | None
    until_ms: int | None
    symbols: frozenset[str]

    def accepts(self, outcome: SignalOutcome) -> bool:
        """Return whether the outcome is selected."""
        return (
            (self.since_ms is None or outcome.ts_exit_ms >= self.since_ms)
            and (self.until_ms is None or outcome.ts_exit_ms < self.until_ms)
            and (not self.symbols or outcome.symbol in self.symbols)
        )


class SelectedOutcomes:
    """The selected outcomes, and which bars and signals belong to them."""

    def __init__(self, outcomes: Sequence[SignalOutcome]) -> None:
        """Take the selected outcomes in order of publication."""
        self.all = outcomes
        self._ids = {outcome.signal_id for outcome in outcomes}
        self._series = {(outcome.symbol, outcome.interval) for outcome in outcomes}
        self.symbols = {outcome.symbol for outcome in outcomes}
        starts = [_begins_ms(outcome) for outcome in outcomes]
        self.start_ms = min(starts, default=0)
        self.end_ms = max((outcome.ts_exit_ms for outcome in outcomes), default=0)

    def needs_bar(self, bar: Candle) -> bool:
        """Return whether this is a closed bar of the outcomes' symbols, intervals and time."""
        return bar.closed and (bar.symbol, bar.interval) in self._series and self.start_ms <= bar.ts_close_ms <= self.end_ms

    def needs_change(self, signal: Signal) -> bool:
        """Return whether this is a signal to exit or hold one of the outcomes' symbols in their time."""
        return (
            signal.action in {Action.EXIT, Action.HOLD}
            and signal.symbol in self.symbols
            and self.start_ms <= signal.as_of.market.ts_event_ms <= self.end_ms
        )

    def has_signal(self, signal: Signal) -> bool:
        """Return whether one of the outcomes belongs to this signal."""
        return signal.signal_id in self._ids


def _begins_ms(outcome: SignalOutcome) -> int:
    """Return the close of the first bar that the report needs for an outcome: levels are measured in the range of the bars before it."""
    if outcome.order is not None:
        return max(0, outcome.order.ts_stands_ms - _BARS_BEFORE * interval_ms(outcome.interval))
    return outcome.ts_exit_ms if outcome.ts_entry_ms is None else outcome.ts_entry_ms


class ClosedBars:
    """Closed bars by symbol. Of several versions of a bar the highest revision is kept, and the first of equal ones."""

    def __init__(self) -> None:
        """Start empty."""
        self._bars: dict[str, dict[tuple[str, int], tuple[int, ReportBar]]] = {}

    def add(self, bar: Candle) -> None:
        """Add a closed bar."""
        of_symbol = self._bars.setdefault(bar.symbol, {})
        key = (bar.interval, bar.ts_close_ms)
        if key not in of_symbol or of_symbol[key][0] < bar.revision:
            of_symbol[key] = (bar.revision, ReportBar.of(bar))

    def by_symbol(self) -> dict[str, list[ReportBar]]:
        """Return the bars by symbol."""
        return {symbol: [bar for _, bar in of_symbol.values()] for symbol, of_symbol in self._bars.items()}


class SignalFacts:
    """Facts that only signals carry: engine, model and prompt version."""

    def __init__(self) -> None:
        """Start empty."""
        self._seen: set[UUID] = set()
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in ("Engine", "Model", "Prompt version")}
        self._degraded = 0

    def add(self, signal: Signal) -> None:
        """Add a signal, unless it was added before."""
        if signal.signal_id in self._seen:
            return
        self._seen.add(signal.signal_id)
        for name, value in (("Engine", signal.engine), ("Model", signal.model), ("Prompt version", signal.prompt_version)):
            self._counts[name][value] += 1
        self._degraded += signal.degraded

    def facts(self, outcomes: int) -> dict[str, str]:
        """Return rows for the report's head; `outcomes` is the count of distinct ones."""
        if not self._seen:
            return {"Engine and model": "unknown: outcomes do not name them, and no signals were given"}
        facts = {name: _counted(counts) for name, counts in self._counts.items()}
        if self._degraded:
            facts["Degraded"] = f"{self._degraded:,} signals came from the fallback, as the engine did not answer"
        if len(self._seen) < outcomes:
            facts["Signals found"] = f"{len(self._seen):,} of {outcomes:,}; engine and model are those of the signals found"
        return facts


@dataclass(frozen=True, slots=True)
class ReportSources:
    """Everything that the report is built from. `notes` are printed as warnings."""

    outcomes: Sequence[SignalOutcome]
    bars: dict[str, list[ReportBar]]
    restatements: Sequence[Restatement]
    changes: Sequence[Signal]
    """Signals to exit or hold."""
    facts: dict[str, str]
    notes: Sequence[str] = field(default=())


def distinct(outcomes: Iterable[SignalOutcome]) -> int:
    """Return the number of signals that these outcomes belong to."""
    return len({outcome.signal_id for outcome in outcomes})


def _counted(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    most = [f"{name} ({count:,})" for name, count in counts.most_common(_SHOWN)]
    return ", ".join(most) + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")
