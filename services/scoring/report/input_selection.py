"""What was found of what the report asks for, whichever way it came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from schemas import Candle, InstrumentEvent, Signal, SignalOutcome
from services.scoring.report import ReportBar

_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class OutcomeFilter:
    """Which outcomes are wanted: those that ended from `since_ms` to before `until_ms`, of `symbols` (of all when empty)."""

    since_ms: int | None
    until_ms: int | None
    symbols: frozenset[str]

    def outcome(self, outcome: SignalOutcome) -> bool:
        """Return whether this one is."""
        return (
            (self.since_ms is None or outcome.ts_exit_ms >= self.since_ms)
            and (self.until_ms is None or outcome.ts_exit_ms < self.until_ms)
            and (not self.symbols or outcome.symbol in self.symbols)
        )


class SelectedOutcomes:
    """The outcomes wanted, and what of the other topics belongs to them."""

    def __init__(self, outcomes: Sequence[SignalOutcome]) -> None:
        """Take those that are wanted, in the order in which they were published."""
        self.all = outcomes
        self._ids = {outcome.signal_id for outcome in outcomes}
        self._series = {(outcome.symbol, outcome.interval) for outcome in outcomes}
        self.symbols = {outcome.symbol for outcome in outcomes}
        starts = [outcome.ts_exit_ms if outcome.ts_entry_ms is None else outcome.ts_entry_ms for outcome in outcomes]
        self.start_ms = min(starts, default=0)
        self.end_ms = max((outcome.ts_exit_ms for outcome in outcomes), default=0)

    def bar(self, bar: Candle) -> bool:
        """Return whether this is a closed bar of theirs."""
        return bar.closed and (bar.symbol, bar.interval) in self._series and self.start_ms <= bar.ts_close_ms <= self.end_ms

    def signal(self, signal: Signal) -> bool:
        """Return whether one of the outcomes is this signal's."""
        return signal.signal_id in self._ids


class ClosedBars:
    """Closed bars by symbol; of several bodies of one the highest revision is kept, and of equal ones the first."""

    def __init__(self) -> None:
        """Begin with none."""
        self._bars: dict[str, dict[tuple[str, int], tuple[int, ReportBar]]] = {}

    def add(self, bar: Candle) -> None:
        """Add a closed bar."""
        of_symbol = self._bars.setdefault(bar.symbol, {})
        key = (bar.interval, bar.ts_close_ms)
        if key not in of_symbol or of_symbol[key][0] < bar.revision:
            of_symbol[key] = (bar.revision, ReportBar(bar.symbol, bar.interval, bar.ts_close_ms, bar.close))

    def by_symbol(self) -> dict[str, list[ReportBar]]:
        """Return them."""
        return {symbol: [bar for _, bar in of_symbol.values()] for symbol, of_symbol in self._bars.items()}


class SignalFacts:
    """What the signals say of themselves and the outcomes do not: who answered, asked how."""

    def __init__(self) -> None:
        """Begin with none."""
        self._seen: set[UUID] = set()
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in ("Engine", "Model", "Prompt version")}
        self._degraded = 0

    def add(self, signal: Signal) -> None:
        """Add one, unless it was there already."""
        if signal.signal_id in self._seen:
            return
        self._seen.add(signal.signal_id)
        for name, value in (("Engine", signal.engine), ("Model", signal.model), ("Prompt version", signal.prompt_version)):
            self._counts[name][value] += 1
        self._degraded += signal.degraded

    def facts(self, outcomes: int) -> dict[str, str]:
        """Return rows for the report's head, out of so many distinct outcomes."""
        if not self._seen:
            return {"Engine and model": "not known: outcomes do not name them, and their signals were not found"}
        facts = {name: _told(counts) for name, counts in self._counts.items()}
        if self._degraded:
            facts["Degraded"] = f"{self._degraded:,} signals are a stand-in's, for an engine that did not answer"
        if len(self._seen) < outcomes:
            facts["Signals found"] = f"{len(self._seen):,} of {outcomes:,}; engine and model are theirs"
        return facts


@dataclass(frozen=True, slots=True)
class ReportSources:
    """What the report is made from. `notes` are told to whoever asked."""

    outcomes: Sequence[SignalOutcome]
    bars: dict[str, list[ReportBar]]
    splits: Sequence[InstrumentEvent]
    facts: dict[str, str]
    notes: Sequence[str] = field(default=())


def distinct(outcomes: Iterable[SignalOutcome]) -> int:
    """Return how many signals these are the outcomes of."""
    return len({outcome.signal_id for outcome in outcomes})


def _told(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    most = [f"{name} ({count:,})" for name, count in counts.most_common(_SHOWN)]
    return ", ".join(most) + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")
