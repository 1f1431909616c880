"""Judges a backtest's signals while it runs, with the scorer's own judge, one for each symbol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from schemas import Cancel, Instrument, MarketFeatures, Restatement, Signal, SignalOutcome
from services.core.calendar import SessionCalendar
from services.core.restatement import restates
from services.core.settings import Settings
from services.scoring.fill_rules import FillRules
from services.scoring.judge import Judge


class SignalJudges:
    """One judge a symbol."""

    def __init__(self, settings: Settings, instruments: Sequence[Instrument], restatements: Iterable[Restatement]) -> None:
        """Fill by `settings` and what instruments say; raise CalendarError when an instrument's calendar is not known."""
        rules = partial(FillRules.of, settings.scoring, settings.fusion.max_jump)
        self._judges = {one.symbol: Judge(rules(one), SessionCalendar.of(one.calendar)) for one in instruments}
        known = {one.symbol: one for one in instruments}
        for event in restatements:
            if restates(event, known[event.symbol]):
                self._judges[event.symbol].restatement(event)

    def bars(self, closed: Iterable[MarketFeatures]) -> list[SignalOutcome]:
        """Take the closed bars of an instant; return the outcomes that they decide."""
        return [outcome for bar in closed for outcome in self._judges[bar.symbol].bar(bar)]

    def message(self, message: Signal | Cancel) -> list[SignalOutcome]:
        """Take a signal or cancel; return the outcomes that it decides."""
        judge = self._judges[message.symbol]
        return judge.signal(message) if isinstance(message, Signal) else judge.cancel(message)

    @property
    def open_signals(self) -> int:
        """Return the number of signals without an outcome."""
        return sum(judge.open_signals for judge in self._judges.values())

    def dump(self) -> dict[str, Any]:
        """Return the state of every judge as plain data."""
        return {symbol: judge.dump() for symbol, judge in self._judges.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `dump` returned."""
        for symbol, judge in self._judges.items():
            judge.load(state[symbol])
