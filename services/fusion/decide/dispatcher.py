"""Lines triggers up in their lanes, starts each as a decision when its turn has come, and hands its result to the ledger.

The lanes decide, without asyncio; here are their tasks, the timer for the next wait that ends, and the bounds on the backlog.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

import structlog

from schemas import AsOf, CancelReason, Mode, Outcome
from services.core import metrics
from services.core.bus import Consumer, Record, TopicPartition
from services.core.clock import Clock
from services.core.fusion_settings import FusionSettings
from services.core.health import Health
from services.fusion.decide.cancel_on_change import CancelOnChange
from services.fusion.decide.decision import Decision
from services.fusion.decide.decision_dependencies import DecisionDependencies
from services.fusion.decide.lanes import Ended, Lanes, Started
from services.fusion.decide.upkeep import CacheUpkeep
from services.fusion.deliver.ledger import Ledger
from services.fusion.deliver.partitions import Partitions
from services.fusion.observe.result import TriggerResult
from services.fusion.observe.spans import TriggerSpans
from services.fusion.state.books import Books
from services.fusion.state.triggers import Trigger

_log = structlog.get_logger()


class Dispatcher:
    """The sink of folded records: takes their triggers to decisions, each a task that holds its lane's permit."""

    takes_triggers = True

    def __init__(
        self,
        dependencies: DecisionDependencies,
        *,
        health: Health,
        consumer: Consumer,
        books: Books,
        partitions: Partitions,
        ledger: Ledger,
        spans: TriggerSpans,
        cancel_on_change: CancelOnChange,
        upkeep: CacheUpkeep,
    ) -> None:
        """Nothing runs yet. `consumer` is paused while too much is unfinished."""
        fusion = dependencies.settings.fusion
        self._admission = dependencies.admission
        permits: dict[Mode, int] = {fusion.mode: fusion.permits, "deep": fusion.deep_permits}
        self.lanes = Lanes(permits, fusion.max_staleness_ms, self._admission.cold)
        self.running: dict[asyncio.Task[None], Trigger] = {}
        self._dependencies = dependencies
        self._clock = dependencies.clock
        self._books = books
        self._partitions = partitions
        self._ledger = ledger
        self._spans = spans
        self._cancel_on_change = cancel_on_change
        self._upkeep = upkeep
        self._backlog = _Backlog(fusion, health, consumer, partitions)
        self._timer = _Timer(self._clock, self)
        self._stopped = False

    # --- The sink of folded records ------------------------------------------------------------------------------------------

    def trigger(self, trigger: Trigger, wait_until_ms: int, record: Record) -> None:
        """Line a trigger up, unless an earlier owner of its partition has ended it."""
        owned = self._partitions.owned(record.partition)
        watermark = self._partitions.watermarks.get(TopicPartition(record.topic, record.partition))
        if owned is None or watermark is None or trigger.trigger_id in owned.history.ended:
            return
        self._ledger.open(trigger, watermark, record)
        signal = owned.history.unaudited.get(trigger.trigger_id)
        if signal is not None:
            # Published before a crash that came ahead of its audit record: that is its outcome, and asking again could change it.
            detail = "published before a restart"
            self._ledger.close(trigger, TriggerResult(Outcome.PUBLISHED, detail=detail, as_of=signal.as_of, signal=signal))
            return
        replaced = self.lanes.offer(trigger, self._clock.now_ms(), wait_until_ms)
        if replaced is not None:
            self._end(replaced)

    def vision_arrived(self, symbol: str, interval: str, window_end_ms: int) -> bool:
        """Let a waiting trigger go on; return True when one was waiting for this window."""
        return self.lanes.complete_wait(symbol, interval, window_end_ms, self._clock.now_ms())

    def bars_changed(self, symbol: str, reason: CancelReason) -> None:
        """Cancel what rested on bars that have been revised or rescaled."""
        self._cancel_on_change.bars_changed(symbol, reason)

    # --- Turns ---------------------------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Bound the backlog, and start every trigger whose turn has come."""
        unfinished = self._partitions.watermarks.unfinished
        # What waits for its acknowledgement alone is as good as done: a slow broker must not empty the lanes.
        for _ in range(unfinished - len(self._ledger.writing) - self._dependencies.settings.fusion.max_unfinished):
            evicted = self.lanes.evict_oldest()
            if evicted is None:
                break
            self._end(evicted)
        self._backlog.pause_or_resume(unfinished)
        self.start_ready()

    def start_ready(self) -> None:
        """Start every trigger whose turn has come."""
        if self._stopped:
            return
        started, ended = self.lanes.start_ready(self._clock.now_ms(), self._admission.verdict, self._held_back)
        for late in ended:
            self._end(late)
        for one in started:
            self._dependencies.traffic.decision_begins()
            task = asyncio.create_task(self._decide(one), name=f"decide-{one.trigger.trigger_id}")
            self.running[task] = one.trigger
            task.add_done_callback(lambda done: self.running.pop(done, None))
        self._timer.set(self.lanes.next_wake_ms())

    def stop(self) -> None:
        """Start no more decisions."""
        self._stopped = True
        self._timer.cancel()

    async def drain(self, partitions: Collection[int], *, finish_ms: float, abort_ms: float) -> None:
        """Forget the lined-up triggers of `partitions`; let running decisions finish for `finish_ms`, then abort within `abort_ms`."""
        for trigger in self.lanes.drop(lambda trigger: trigger.origin.partition in partitions):
            self._ledger.abandon(trigger)
        running = [task for task, trigger in self.running.items() if trigger.origin.partition in partitions]
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=finish_ms / 1000)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=abort_ms / 1000)

    def update_gauges(self) -> None:
        """Show how many lanes are in each state."""
        for state, count in self.lanes.counts().items():
            metrics.LANES.labels(state).set(count)

    def _held_back(self, trigger: Trigger) -> bool:
        return not self._partitions.may_decide(trigger.origin.partition)

    def _end(self, ended: Ended) -> None:
        self._ledger.close(ended.trigger, TriggerResult(Outcome(ended.outcome), ended.reason))

    async def _decide(self, started: Started) -> None:
        trigger = started.trigger
        lane = trigger.lane
        owned = self._partitions.owned(trigger.origin.partition)
        book = self._books.get(lane.symbol)
        if owned is None or book is None:
            self._ledger.abandon(trigger)
            self.give_back(trigger)
            return
        trace = self._ledger.trace(trigger)
        self._spans.rests_on(trace, lane.symbol)
        permit = _Permit(self, trigger)

        def handed_over(as_of: AsOf) -> None:
            owned.history.as_of[lane] = as_of
            permit.give_back()
            self.start_ready()

        decision = Decision(self._dependencies, book, trigger, owned.history.as_of.get(lane), trace=trace, on_handed_over=handed_over)
        # What is logged on the way carries the trace; what is started afterwards must not.
        with structlog.contextvars.bound_contextvars(**({} if trace.trace_id is None else {"trace_id": trace.trace_id})):
            try:
                result = await decision.run(started.ready_ms)
            except asyncio.CancelledError:
                self._ledger.abandon(trigger)
                raise
            except Exception as error:  # noqa: BLE001 - one symbol's error must not end the others' decisions
                _log.exception("decision_failed", symbol=lane.symbol, trigger_id=str(trigger.trigger_id))
                result = decision.failed(error)
            finally:
                permit.give_back()
        self._ledger.close(trigger, result)
        self._upkeep.decided(trigger, result)
        self.start_ready()

    def give_back(self, trigger: Trigger) -> None:
        """End a trigger's turn: its lane and its permit are free."""
        self.lanes.finish(trigger)
        self._admission.ended(trigger)
        self._dependencies.traffic.decision_ends()


class _Permit:
    """A running trigger's permit, which is free as soon as its signal has been handed over: the rationale needs none."""

    def __init__(self, dispatcher: Dispatcher, trigger: Trigger) -> None:
        self._dispatcher = dispatcher
        self._trigger: Trigger | None = trigger

    def give_back(self) -> None:
        """Free the permit, the first time."""
        if self._trigger is not None:
            trigger, self._trigger = self._trigger, None
            self._dispatcher.give_back(trigger)


class _Timer:
    """Starts ready triggers once the clock has reached what `set` was called with last."""

    def __init__(self, clock: Clock, dispatcher: Dispatcher) -> None:
        self._clock = clock
        self._dispatcher = dispatcher
        self._task: asyncio.Task[None] | None = None
        self._at_ms: int | None = None

    def set(self, at_ms: int | None) -> None:
        """Wake at `at_ms` in place of what was set before; never when None."""
        if at_ms == self._at_ms and self._task is not None and not self._task.done():
            return
        self.cancel()
        self._at_ms = at_ms
        self._task = asyncio.create_task(self._sleep(at_ms), name="lane-timer") if at_ms is not None else None

    def cancel(self) -> None:
        """Wake no more."""
        if self._task is not None:
            self._task.cancel()

    async def _sleep(self, at_ms: int) -> None:
        await self._clock.sleep_until(at_ms)
        self._task = None
        self._dispatcher.start_ready()


class _Backlog:
    """Pauses both input topics past `pause_at_unfinished` records, to bound memory, and resumes at half of it."""

    def __init__(self, settings: FusionSettings, health: Health, consumer: Consumer, partitions: Partitions) -> None:
        self._pause_at: Final = settings.pause_at_unfinished
        self._health = health
        self._consumer = consumer
        self._partitions = partitions
        self._paused = False

    def pause_or_resume(self, unfinished: int) -> None:
        """Pause or resume as `unfinished` wants it."""
        if not self._paused and unfinished > self._pause_at:
            self._paused = True
            self._health.excuse("paused")
            self._consumer.pause(sorted(self._consumer.assignment()))
            _log.warning("paused", unfinished=unfinished)
        elif self._paused and unfinished < self._pause_at // 2:
            self._paused = False
            self._health.end_excuse("paused")
            self._consumer.resume(sorted(self._partitions.readable(self._consumer.assignment())))
            _log.info("resumed", unfinished=unfinished)
