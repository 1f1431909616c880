"""Takes each trigger whose turn has come through its decision to its outcome in the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import structlog

from schemas import Outcome
from services.fusion.decide.decision import Decision, Parts
from services.fusion.decide.ending import Ending
from services.fusion.decide.lanes import Lanes, Started
from services.fusion.deliver.ledger import Ledger
from services.fusion.deliver.ownership import Ownership
from services.fusion.observe.spans import TriggerSpans
from services.fusion.state.books import Books
from services.fusion.state.triggers import Trigger

_log = structlog.get_logger()


class Decider:
    """Runs decisions, each a task of its own that holds its lane's permit."""

    def __init__(
        self,
        parts: Parts,
        *,
        books: Books,
        lanes: Lanes,
        ledger: Ledger,
        ownership: Ownership,
        spans: TriggerSpans,
        decided: Callable[[Trigger, Ending], None],
    ) -> None:
        """`decided` is called with each ending, once its permit is free and its outcome is on its way to the audit."""
        self._parts = parts
        self._books = books
        self._lanes = lanes
        self._ledger = ledger
        self._ownership = ownership
        self._spans = spans
        self._decided = decided
        self.running: dict[asyncio.Task[None], Trigger] = {}

    def start(self, started: Started) -> None:
        """Begin a decision."""
        task = asyncio.create_task(self._decide(started), name=f"decide-{started.trigger.trigger_id}")
        self.running[task] = started.trigger
        task.add_done_callback(lambda done: self.running.pop(done, None))

    async def give_up(self, partitions: Collection[int], *, after_ms: float, within_ms: float) -> None:
        """Let the decisions of `partitions` finish for `after_ms`, cancel the others, and wait `within_ms` for those to end."""
        running = [task for task, trigger in self.running.items() if trigger.origin.partition in partitions]
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=after_ms / 1000)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=within_ms / 1000)

    async def _decide(self, started: Started) -> None:
        trigger = started.trigger
        lane = trigger.lane
        owned = self._ownership.owned(trigger.origin.partition)
        book = self._books.get(lane.symbol)
        if owned is None or book is None:
            self._ledger.abandon(trigger)
            self._lanes.finish(trigger)
            return
        trace = self._ledger.trace(trigger)
        self._spans.deciding(trace, lane.symbol)
        decision = Decision(self._parts, book, trigger, owned.known.as_of.get(lane), trace)
        # What is logged on the way carries the trace; what is started afterwards must not.
        with structlog.contextvars.bound_contextvars(**({} if trace.trace_id is None else {"trace_id": trace.trace_id})):
            try:
                ending = await decision.run(started.ready_ms)
            except asyncio.CancelledError:
                self._ledger.abandon(trigger)
                raise
            except Exception as error:  # noqa: BLE001 - one symbol's trouble must not end the others'
                _log.exception("decision_broke", symbol=lane.symbol, trigger_id=str(trigger.trigger_id))
                ending = Ending(Outcome.FAILED, "internal_error", f"{type(error).__name__}: {error}")
            finally:
                self._lanes.finish(trigger)
        self._ledger.conclude(trigger, ending)
        if ending.outcome is Outcome.PUBLISHED and ending.as_of is not None:
            owned.known.as_of[lane] = ending.as_of
        self._decided(trigger, ending)
