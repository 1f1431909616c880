"""The newest records of the topics, folded: decisions with their signals and results, bars, vision features, and sums over them.

Each record that is folded becomes an event for the pages. A record that does not follow its contract is kept aside and shown as such.
"""

from __future__ import annotations

import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

import orjson
from pydantic import BaseModel, ValidationError

from schemas import (
    AuditRecord,
    Cancel,
    MarketFeatures,
    Outcome,
    RunMode,
    Signal,
    SignalOutcome,
    Topic,
    VisionFeatures,
    decode_signal_message,
    live_name,
)
from services.console.events import Event, EventLog
from services.console.memory import BoundedMap
from services.console.models import Bar, DecisionRow, Totals, Unreadable
from services.console.timeline import Timeline
from services.core.bus import Record

_MAX_BARS: Final = 500
"""Of a symbol and interval."""
_MAX_UNREADABLE: Final = 100
_EXCERPT: Final = 200
_ROW_BYTES: Final = 4_300
_NODE_BYTES: Final = 300
"""What a decision and any other entry take beside the record's bytes, as tracemalloc shows (CPython 3.11)."""

Series = tuple[str, str]
"""A symbol and an interval."""


class HeldDecision(NamedTuple):
    """An audit record as it came, where it was, and its row."""

    value: bytes
    where: str
    row: DecisionRow


def _decision_bytes(decision: HeldDecision) -> int:
    return len(decision.value) + _ROW_BYTES


def _entry_bytes(value: bytes) -> int:
    return len(value) + _NODE_BYTES


@dataclass(slots=True)
class HeldSeries:
    """The last bars of a symbol and interval by their ends, and its newest vision features."""

    bars: dict[int, bytes] = field(default_factory=dict)
    vision: bytes = b""
    nbytes: int = 0

    def put_bar(self, ts_close_ms: int, data: bytes) -> None:
        """Set a bar, and drop the oldest of too many."""
        self.nbytes += len(data) - len(self.bars.get(ts_close_ms, b""))
        self.bars[ts_close_ms] = data
        if len(self.bars) > _MAX_BARS:
            self.nbytes -= len(self.bars.pop(min(self.bars)))

    def put_vision(self, value: bytes) -> None:
        """Set the newest vision features."""
        self.nbytes += len(value) - len(self.vision)
        self.vision = value


class Recent:
    """What the newest records say, within `max_bytes`."""

    def __init__(self, run_mode: RunMode, max_bytes: int, max_record_bytes: int, events: EventLog) -> None:
        """Hold nothing yet. Larger records than `max_record_bytes` are not parsed."""
        self._run_mode = run_mode
        self._max_record_bytes = max_record_bytes
        self._events = events
        self._decisions: BoundedMap[UUID, HeldDecision] = BoundedMap(max_bytes * 5 // 10, _decision_bytes, self._forget)
        self._signals: BoundedMap[UUID, bytes] = BoundedMap(max_bytes // 10, _entry_bytes)
        self._cancels: BoundedMap[UUID, bytes] = BoundedMap(max_bytes // 20, _entry_bytes)
        self._results: dict[RunMode, BoundedMap[UUID, bytes]] = {}
        self._result_bytes = max_bytes // 20
        self._series: OrderedDict[Series, HeldSeries] = OrderedDict()
        self._max_series_bytes = max_bytes // 4
        self._series_bytes = 0
        self._trigger_of: dict[UUID, UUID] = {}
        self.unreadable: deque[Unreadable] = deque(maxlen=_MAX_UNREADABLE)
        self.unreadable_count = 0
        self.timeline = Timeline()
        self._outcomes: Counter[Outcome] = Counter()
        self._reasons: Counter[str] = Counter()
        self._actions: Counter[str] = Counter()

    # --- Folding ----------------------------------------------------------------------------------------------------------------

    def take(self, record: Record) -> None:
        """Fold one record of any of the topics."""
        value = record.value
        if not value:
            return
        where = f"{record.topic}[{record.partition}] offset {record.offset}"
        if len(value) > self._max_record_bytes:
            self._refuse(where, f"{len(value)} bytes; at most {self._max_record_bytes} are read (bus.max_record_bytes)", value)
            return
        try:
            match live_name(record.topic):
                case Topic.SIGNAL_AUDIT:
                    self._take_audit(AuditRecord.decode(value), value, where, record.timestamp_ms)
                case Topic.STRATEGY_SIGNALS:
                    self._take_signal(decode_signal_message(value), value)
                case Topic.SIGNAL_OUTCOMES:
                    self._take_result(SignalOutcome.decode(value), value)
                case Topic.MARKET_FEATURES:
                    self._take_bar(MarketFeatures.decode(value))
                case Topic.VISION_FEATURES:
                    self._take_vision(VisionFeatures.decode(value), value)
                case _:
                    return
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            self._refuse(where, f"{'.'.join(map(str, first['loc'])) or 'record'}: {first['msg']}", value)

    def _take_audit(self, audit: AuditRecord, value: bytes, where: str, at_ms: int) -> None:
        if audit.run_mode is not self._run_mode:
            return
        known = audit.trigger_id in self._decisions
        row = row_of(audit, self.signal(audit.signal_id), self.cancel(audit.signal_id))
        self._decisions.put(audit.trigger_id, HeldDecision(value, where, row))
        if audit.signal_id is not None:
            self._trigger_of[audit.signal_id] = audit.trigger_id
        if not known:
            self._outcomes[audit.outcome] += 1
            if audit.reason is not None:
                self._reasons[f"{audit.outcome.value}/{audit.reason}"] += 1
            if audit.outcome is Outcome.PUBLISHED and audit.action is not None:
                self._actions[audit.action.value] += 1
            self.timeline.add(at_ms, audit, row.total_ms)
        self._tell("decision", row)

    def _take_signal(self, message: Signal | Cancel, value: bytes) -> None:
        if message.run_mode is not self._run_mode:
            return
        held = self._signals if isinstance(message, Signal) else self._cancels
        if message.signal_id in held:
            return  # a redelivery: the first body counts
        held.put(message.signal_id, value)
        # Signals and audit have no common order: whichever comes last completes the row.
        decision = self._by_signal(message.signal_id)
        if decision is not None:
            audit = AuditRecord.decode(decision.value)
            row = row_of(audit, self.signal(message.signal_id), self.cancel(message.signal_id))
            self._decisions.put(audit.trigger_id, decision._replace(row=row))
            self._tell("decision", row)

    def _take_result(self, result: SignalOutcome, value: bytes) -> None:
        held = self._results.setdefault(result.run_mode, BoundedMap(self._result_bytes, _entry_bytes))
        if result.signal_id not in held:
            held.put(result.signal_id, value)
            self._tell("result", result, result.symbol)

    def _take_bar(self, market: MarketFeatures) -> None:
        data = orjson.dumps(bar_of(market).model_dump())
        with self._changing(market.symbol, market.interval) as held:
            held.put_bar(market.ts_close_ms, data)
        self._events.append(Event("bar", b'{"interval":%b,"bar":%b}' % (orjson.dumps(market.interval), data), market.symbol))

    def _take_vision(self, vision: VisionFeatures, value: bytes) -> None:
        with self._changing(vision.symbol, vision.interval) as held:
            held.put_vision(value)
        self._events.append(Event("vision", b'{"interval":%b}' % orjson.dumps(vision.interval), vision.symbol))

    @contextlib.contextmanager
    def _changing(self, symbol: str, interval: str) -> Iterator[HeldSeries]:
        """Yield a series to change; then evict those that have not changed for longest and no longer fit."""
        held = self._series.setdefault((symbol, interval), HeldSeries())
        self._series.move_to_end((symbol, interval))
        before = held.nbytes
        yield held
        self._series_bytes += held.nbytes - before
        while self._series_bytes > self._max_series_bytes and len(self._series) > 1:
            self._series_bytes -= self._series.popitem(last=False)[1].nbytes

    def _refuse(self, where: str, problem: str, value: bytes) -> None:
        self.unreadable_count += 1
        one = Unreadable(where=where, problem=problem, excerpt=value[:_EXCERPT].decode(errors="replace"))
        self.unreadable.append(one)
        self._tell("unreadable", one)

    def _tell(self, kind: str, message: BaseModel, symbol: str = "") -> None:
        self._events.append(Event(kind, message.model_dump_json().encode(), symbol))

    def _forget(self, _: UUID, decision: HeldDecision) -> None:
        if decision.row.signal_id is not None:
            self._trigger_of.pop(UUID(decision.row.signal_id), None)

    def _by_signal(self, signal_id: UUID) -> HeldDecision | None:
        trigger_id = self._trigger_of.get(signal_id)
        return None if trigger_id is None else self._decisions.get(trigger_id)

    # --- Looking up -------------------------------------------------------------------------------------------------------------

    @property
    def held_bytes(self) -> int:
        """Return the bytes held, overhead included."""
        values = sum(one.held_bytes for one in (self._signals, self._cancels, *self._results.values()))
        return self._decisions.held_bytes + values + self._series_bytes

    @property
    def held_decisions(self) -> int:
        """Return how many decisions are held."""
        return len(self._decisions)

    def totals(self) -> Totals:
        """Return the sums over all decisions so far, those evicted included."""
        return Totals(
            triggers=self._outcomes.total(),
            outcomes={one: self._outcomes[one] for one in Outcome},
            reasons=dict(self._reasons.most_common(30)),
            actions=dict(self._actions),
        )

    def decisions(self, *, symbol: str | None = None, outcome: Outcome | None = None) -> Iterator[DecisionRow]:
        """Yield the rows, the newest trigger first."""
        for held in self._decisions.newest_first():
            if (symbol is None or held.row.symbol == symbol) and (outcome is None or held.row.outcome is outcome):
                yield held.row

    def find(self, wanted: str) -> list[HeldDecision]:
        """Return the decisions whose trigger_id or signal_id begins with `wanted`."""
        wanted = wanted.strip().lower()
        try:
            exact = UUID(wanted)
        except ValueError:
            return [
                one
                for one in self._decisions.newest_first()
                if one.row.trigger_id.startswith(wanted) or (one.row.signal_id or "").startswith(wanted)
            ]
        held = self._decisions.get(exact) or self._by_signal(exact)
        return [] if held is None else [held]

    def signal(self, signal_id: UUID | None) -> Signal | None:
        """Return a signal, None when it is not held."""
        value = None if signal_id is None else self._signals.get(signal_id)
        return None if value is None else Signal.decode(value)

    def signal_of(self, row: DecisionRow) -> Signal | None:
        """Return a decision's signal, None when it has none or it is not held."""
        return None if row.signal_id is None else self.signal(UUID(row.signal_id))

    def cancel(self, signal_id: UUID | None) -> Cancel | None:
        """Return the cancel of a signal, None when there is none."""
        value = None if signal_id is None else self._cancels.get(signal_id)
        return None if value is None else Cancel.decode(value)

    def result(self, signal_id: UUID | None) -> SignalOutcome | None:
        """Return what became of a signal, None while it is not judged."""
        held = self._results.get(self._run_mode)
        value = None if signal_id is None or held is None else held.get(signal_id)
        return None if value is None else SignalOutcome.decode(value)

    def results(self, run_mode: RunMode) -> list[SignalOutcome]:
        """Return every judged signal of a run mode, in the order of their outcomes."""
        held = self._results.get(run_mode)
        return [] if held is None else [SignalOutcome.decode(one) for one in held.values()]

    def result_count(self, run_mode: RunMode) -> int:
        """Return how many judged signals of a run mode are held."""
        held = self._results.get(run_mode)
        return 0 if held is None else len(held)

    def series(self) -> list[Series]:
        """Return every symbol and interval with bars or vision features."""
        return list(self._series)

    def bars(self, symbol: str, interval: str) -> list[Bar]:
        """Return the bars held, in order of time."""
        held = self._series.get((symbol, interval))
        return [] if held is None else [Bar.model_validate(orjson.loads(data)) for _, data in sorted(held.bars.items())]

    def vision(self, symbol: str, interval: str) -> VisionFeatures | None:
        """Return the newest vision features, None when there are none."""
        held = self._series.get((symbol, interval))
        return None if held is None or not held.vision else VisionFeatures.decode(held.vision)


def bar_of(market: MarketFeatures) -> Bar:
    """Return a bar as the page draws it."""
    return Bar(
        ts_open_ms=market.ts_open_ms,
        ts_close_ms=market.ts_close_ms,
        open=market.open,
        high=market.high,
        low=market.low,
        close=market.close,
        volume=market.volume,
        closed=market.closed,
        features=market.features,
    )


def row_of(audit: AuditRecord, signal: Signal | None, cancel: Cancel | None) -> DecisionRow:
    """Return a decision in a line."""
    return DecisionRow(
        trigger_id=str(audit.trigger_id),
        signal_id=None if audit.signal_id is None else str(audit.signal_id),
        symbol=audit.symbol,
        interval=audit.interval,
        mode=audit.mode,
        run_mode=audit.run_mode,
        outcome=audit.outcome,
        reason=audit.reason,
        action=audit.action,
        conviction=signal.conviction if signal else None,
        entry=signal.entry if signal else None,
        stop=signal.stop if signal else None,
        target=signal.target if signal else None,
        valid_until_ms=signal.valid_until_ms if signal else None,
        cancelled=cancel.reason.value if cancel else None,
        source=audit.source,
        vision=audit.vision,
        ts_done_ms=audit.ts_done_ms,
        ts_event_ms=audit.trigger.ts_event_ms,
        total_ms=round(audit.total_ms, 1) if audit.outcome is Outcome.PUBLISHED else None,
        prompt_tokens=audit.prompt_tokens,
        cached_tokens=audit.cached_tokens,
    )
