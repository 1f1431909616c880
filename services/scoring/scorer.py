"""Decodes and checks records, and passes them to the judge of their symbol. No Kafka client and nothing asynchronous in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import orjson

from schemas import Action, Cancel, DeadLetterReason, Instrument, MarketFeatures, Signal, SignalOutcome
from services.core.bus import Record
from services.core.calendar import SessionCalendar
from services.core.decode import Refused, decode
from services.core.errors import ServiceError
from services.core.folding.candles import CandleRules, KnownInstruments, new_book, refuse_future
from services.core.folding.disposition import Disposition, RecordResult
from services.core.restatement import restates
from services.scoring.fill_rules import FillRules
from services.scoring.judge import Judge
from services.scoring.paper_position import missing_fields


@dataclass(frozen=True, slots=True)
class Scored(RecordResult):
    """The disposition of a record, its symbol, and the outcomes that it brought about."""

    symbol: str = ""
    outcomes: list[SignalOutcome] = field(default_factory=list)


class Scorer:
    """The judges of the symbols of this worker's partitions."""

    def __init__(
        self,
        known: KnownInstruments,
        fills: Callable[[Instrument], FillRules],
        rules: CandleRules,
        partitions: int,
        stored: Callable[[str], bytes | None],
    ) -> None:
        """Begin without judges, on topics of so many partitions.

        `fills` returns the fill rules of an instrument. `stored` returns what `dump` made of a symbol's judge in an earlier life, None
        when there was none.
        """
        self._known = known
        self._fills = fills
        self._rules = rules
        self._partitions = partitions
        self._stored = stored
        self._judges: dict[str, Judge] = {}

    @property
    def open_signals(self) -> int:
        """Return how many signals have no outcome yet."""
        return sum(judge.open_signals for judge in self._judges.values())

    def begin(self, symbols: Iterable[str]) -> None:
        """Forget all judges, and take on those of `symbols` whose instrument is known.

        Raises ServiceError when one was stored while the topics had another partition count.
        """
        self._judges.clear()
        for symbol in symbols:
            self._judge(symbol)

    def signal(self, record: Record) -> Scored:
        """Take a record of the signals' topic: a signal or a cancel. One that is refused changes nothing."""
        kind: type[Signal | Cancel] = Cancel if _is_cancel(record, self._rules.max_bytes) else Signal
        message = decode(kind, record, self._rules.modes, self._rules.max_bytes)
        if isinstance(message, Refused):
            return _refused(message)
        judge = self._judge(message.symbol)
        if isinstance(judge, Refused):
            return _refused(judge)
        refused = _unfit(message, judge) if isinstance(message, Signal) else None
        if refused is not None:
            return _refused(refused)
        if isinstance(message, Signal) and message.action in {Action.HOLD, Action.ABSTAIN}:
            return Scored(Disposition.FILTERED, None, message.unknown_fields(), message.symbol)
        outcomes = self._restate(judge, message.symbol)
        outcomes += judge.cancel(message) if isinstance(message, Cancel) else judge.signal(message)
        return Scored(Disposition.FOLDED, None, message.unknown_fields(), message.symbol, outcomes)

    def bar(self, record: Record) -> Scored:
        """Take a record of the market's topic. Bars that form, and those of instruments that nobody knows, are filtered."""
        bar = decode(MarketFeatures, record, self._rules.modes, self._rules.max_bytes)
        if isinstance(bar, Refused):
            return _refused(bar)
        unknown = bar.unknown_fields()
        if not bar.closed:
            return Scored(Disposition.FILTERED, unknown_fields=unknown)
        future = refuse_future(bar, record, self._rules.max_skew_ms)
        if future is not None:
            return _refused(future)
        judge = self._judge(bar.symbol)
        if isinstance(judge, Refused):
            # No signal is made on an unknown instrument, and the fusion worker dead-letters the record.
            return Scored(Disposition.FILTERED, judge, unknown, bar.symbol)
        return Scored(Disposition.FOLDED, None, unknown, bar.symbol, self._restate(judge, bar.symbol) + judge.bar(bar))

    def dump(self, symbol: str) -> bytes:
        """Return the state of a symbol's judge as JSON."""
        return orjson.dumps({"partitions": self._partitions, **self._judges[symbol].dump()})

    def _judge(self, symbol: str) -> Judge | Refused:
        judge = self._judges.get(symbol)
        if judge is not None:
            return judge

        def make(instrument: Instrument) -> Judge:
            made = Judge(self._fills(instrument), SessionCalendar.of(instrument.calendar))
            stored = self._stored(symbol)
            if stored is not None:
                state = orjson.loads(stored)
                self._refuse_other_count(state["partitions"])
                made.load(state)
            return made

        found = new_book(self._known, symbol, make)
        if isinstance(found, Judge):
            self._judges[symbol] = found
        return found

    def _refuse_other_count(self, partitions: int) -> None:
        if partitions != self._partitions:
            raise ServiceError(
                f"the scorer's inputs and changelog had {partitions} partitions when its changelog was written and have {self._partitions} "
                "now: symbols have moved to other partitions, away from their open signals. Make these topics and signal-outcomes "
                "anew with one count, and name a scoring.group that is new as well"
            )

    def _restate(self, judge: Judge, symbol: str) -> list[SignalOutcome]:
        """Pass the splits and dividends on to the judge that prices have to be restated for."""
        instrument = self._known.get(symbol)
        if instrument is None:
            return []
        events = [event for event in self._known.restatements(symbol) if restates(event, instrument)]
        return [outcome for event in events for outcome in judge.restatement(event)]


def _is_cancel(record: Record, max_bytes: int) -> bool:
    """Return whether the record is marked as a cancel; decoding by the contract reports what is wrong with it."""
    if not record.value or len(record.value) > max_bytes:
        return False
    try:
        found = orjson.loads(record.value)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and found.get("kind") == "cancel"


def _unfit(signal: Signal, judge: Judge) -> Refused | None:
    """Return why a signal cannot be judged; None when it can be, or opens nothing."""
    if signal.action not in {Action.BUY, Action.SELL}:
        return None
    if missing := missing_fields(signal):
        return Refused(DeadLetterReason.INVALID, f"a signal to {signal.action.value} needs {', '.join(missing)} to be judged")
    if judge.is_too_late(signal):
        return Refused(DeadLetterReason.LATE, f"signal {signal.signal_id}: the bars that it is judged by are evicted")
    return None


def _refused(refused: Refused) -> Scored:
    return Scored(Disposition.DEAD_LETTERED, refused)
