"""One decision: guard, prompt, engine and answer of a trigger whose turn has come; its signal is handed over before the rationale ends."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from schemas import AsOf, Outcome
from services.core import metrics
from services.fusion.decide.asking import Asking
from services.fusion.decide.deadline import Deadline, until
from services.fusion.decide.decision_dependencies import DecisionDependencies
from services.fusion.decide.publication import Publication
from services.fusion.decide.signals import Snapshot
from services.fusion.decide.stopwatch import Stopwatch
from services.fusion.inputs.tables import InputFailedError
from services.fusion.observe.result import TriggerResult
from services.fusion.observe.spans import TriggerTrace
from services.fusion.state.book import Book
from services.fusion.state.rejection import Rejection
from services.fusion.state.triggers import Trigger
from services.inference.engine import EngineError
from services.strategy.hooks import HookError

_log = structlog.get_logger()


class Decision:
    """One trigger's way through prompt, engine, guard and producer."""

    def __init__(
        self,
        dependencies: DecisionDependencies,
        book: Book,
        trigger: Trigger,
        last_as_of: AsOf | None,
        *,
        trace: TriggerTrace,
        on_handed_over: Callable[[AsOf], None],
    ) -> None:
        """`last_as_of` is the lane's last one published: a decision that rests on less is not published. `trace` goes along.

        `on_handed_over` is called with the signal's as-of as soon as the producer has it; what follows is the rationale.
        """
        self._with = dependencies
        self._book = book
        self._trigger = trigger
        self._last_as_of = last_as_of
        self._trace = trace
        self._result = TriggerResult(Outcome.FAILED)
        # Nothing below refers back to this decision: a cycle would keep its prompt, 128 KiB at 32K tokens, until a pass of the collector.
        self._deadline = Deadline(dependencies.settings.fusion, book, trigger, skew=dependencies.publisher.skew, tables=dependencies.tables)
        self._publication = Publication(
            dependencies, book, trigger, self._result, trace, deadline=self._deadline, on_handed_over=on_handed_over
        )

    async def run(self, ready_ms: int) -> TriggerResult:
        """Return how the trigger ended. `ready_ms` is when it began to wait for a permit alone."""
        result, trigger = self._result, self._trigger
        now_ms = self._with.clock.now_ms()
        result.stages_ms.update(
            fold=float(trigger.made_ms - trigger.origin.ts_ms),
            vision_wait=float(ready_ms - trigger.made_ms),
            queue=float(now_ms - ready_ms),
        )
        rejection = self._stop_before_asking()
        if rejection is not None:
            return self._end(Outcome.BLOCKED, rejection.rule, rejection.detail)
        if self._rests_on_less():
            return self._end(Outcome.STALE, "as_of_behind", "a decision that rests on later records has been published")
        late_ms = now_ms - (result.deadline_ms or 0)
        if late_ms > 0:
            return self._end(Outcome.STALE, "deadline", f"its turn came {late_ms} ms after the deadline")
        try:
            await self._ask()
        except Exception as error:
            if not self._publication.handed_over:
                raise
            # The signal is on its way: its outcome is what the broker says of it, whatever fails in reading the rationale.
            _log.exception("failed_after_hand_over", symbol=trigger.lane.symbol, trigger_id=str(trigger.trigger_id))
            result.detail = f"after the signal was published: {type(error).__name__}: {error}"
        if self._publication.handed_over:
            await self._publication.concluded()
        return result

    def failed(self, error: Exception) -> TriggerResult:
        """Return how a trigger ended whose decision raised `error`: as the broker said once it has acknowledged the signal."""
        if self._result.outcome is Outcome.PUBLISHED:
            return self._result
        return self._end(Outcome.FAILED, "internal_error", f"{type(error).__name__}: {error}")

    def _stop_before_asking(self) -> Rejection | None:
        """Take the book as it is now, and return why it is not asked about."""
        using, book, trigger, result = self._with, self._book, self._trigger, self._result
        market = book.market_ref
        assert market is not None  # noqa: S101 - a trigger comes from a folded record
        result.as_of = AsOf(market=market, vision=book.vision_ref)
        result.control_offset = using.control.offset
        try:
            result.as_of = AsOf(market=market, vision=book.vision_ref, tables=using.tables.as_of(trigger.lane.symbol))
        except InputFailedError as error:
            metrics.HOOKS_FAILED.labels("input").inc()
            return Rejection("hook_failed", str(error))
        halted = using.control.halted(trigger.lane.symbol)
        if halted is not None:
            return Rejection("halted", halted)
        rejection = using.tables.rejection(trigger.lane.symbol, using.clock.now_ms())
        rejection = rejection or using.guard.on_clock(using.publisher.skew.skew_ms)
        if rejection is None:
            lag_ms = trigger.origin.ts_ms - trigger.origin.ts_event_ms
            metrics.EVENT_LAG_SECONDS.observe(lag_ms / 1000)
            rejection = using.guard.on_book(book, trigger.lane.interval, lag_ms, using.control.state.resumed_ms(trigger.lane.symbol))
        if rejection is None:
            result.deadline_ms = self._deadline.hand_over_ms()
        return rejection

    def _rests_on_less(self) -> bool:
        last, now = self._last_as_of, self._result.as_of
        if last is None or now is None:
            return False
        if now.market.offset < last.market.offset:
            return True
        return last.vision is not None and (now.vision is None or now.vision.offset < last.vision.offset)

    async def _ask(self) -> None:
        """Ask the engine, the stand-in where one is configured and the engine does not answer; fill in the result."""
        using, result, lane = self._with, self._result, self._trigger.lane
        try:
            plan = using.prompts.plan(self._book, lane.interval, lane.mode)
        except HookError as error:
            metrics.HOOKS_FAILED.labels("input" if isinstance(error, InputFailedError) else "facts").inc()
            self._end(Outcome.FAILED, "hook_failed", str(error))
            return
        result.vision = plan.vision.state
        last_close_ms = self._book.bars[lane.interval].last_close_ms
        snapshot = Snapshot(
            plan.vision,
            plan.facts["close"],
            plan.facts["atr"],
            last_close_ms,
            self._deadline.valid_until_ms(),
            self._book.epochs.version,
            plan.view,
        )
        watch = Stopwatch(result.stages_ms, using.clock)
        try:
            async with until(using.clock, result.deadline_ms or 0):
                result.prompt = await using.prompts.build(plan)
                watch.lap("prompt")
                asking = Asking(
                    using,
                    self._trigger,
                    plan,
                    result.prompt,
                    snapshot,
                    result=result,
                    publication=self._publication,
                    watch=watch,
                    trace=self._trace,
                )
                for engine, degraded in ((using.engine, False), (using.fallback, True)):
                    if engine is None:
                        continue
                    try:
                        await asking.ask(engine, degraded=degraded)
                    except EngineError as error:
                        metrics.ENGINE_FAILURES.labels(error.reason).inc()
                        if error.reason == "engine_timeout":
                            self._too_late(error.detail)
                        else:
                            self._end(Outcome.FAILED, error.reason, error.detail)
                        if self._publication.handed_over:
                            return  # the signal is published already; only the rationale is lost
                        continue
                    return
        except TimeoutError:
            if not self._publication.handed_over:
                self._too_late("the deadline passed before a decision was complete")
        finally:
            result.answering_ms = watch.since_ms("prompt")

    def _too_late(self, detail: str) -> None:
        """End the same way whether the engine's client or the decision itself was the first to see the deadline pass."""
        self._with.admission.timed_out(self._trigger)
        if "first_token" in self._result.stages_ms:
            self._end(Outcome.STALE, "deadline", detail)
        else:
            self._end(Outcome.FAILED, "engine_timeout", detail)

    def _end(self, outcome: Outcome, reason: str, detail: str) -> TriggerResult:
        self._result.end(outcome, reason, detail)
        return self._result
