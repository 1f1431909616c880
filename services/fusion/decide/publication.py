"""From an answer to a published signal: the last checks, the hand-over to the producer, and what the broker says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from schemas import AsOf, Outcome
from services.core import metrics
from services.core.bus import BusError
from services.fusion.decide.answer import Answer, Entry, action_of
from services.fusion.decide.deadline import Deadline
from services.fusion.decide.decision_dependencies import DecisionDependencies
from services.fusion.decide.guard import own_rejection
from services.fusion.decide.prices import prices
from services.fusion.decide.signals import SignalBasis, Snapshot, make_signal
from services.fusion.deliver.acknowledgements import SentSignal
from services.fusion.observe.result import TriggerResult
from services.fusion.observe.spans import TriggerTrace
from services.fusion.prompt.labels import LabelAction
from services.fusion.state.book import Book
from services.fusion.state.rejection import Rejection
from services.fusion.state.triggers import Trigger

_log = structlog.get_logger()


class Publication:
    """The signal of one trigger, from the answer on."""

    def __init__(
        self,
        dependencies: DecisionDependencies,
        book: Book,
        trigger: Trigger,
        result: TriggerResult,
        trace: TriggerTrace,
        *,
        deadline: Deadline,
        on_handed_over: Callable[[AsOf], None],
    ) -> None:
        """`on_handed_over` is called with the signal's as-of as soon as the producer has it."""
        self._with = dependencies
        self._book = book
        self._trigger = trigger
        self._result = result
        self._trace = trace
        self._deadline = deadline
        self._on_handed_over = on_handed_over
        self._acknowledging: asyncio.Task[float] | None = None
        """Yields the milliseconds until the signal was acknowledged."""
        self._acknowledged_ms = 0

    @property
    def handed_over(self) -> bool:
        """Return whether the signal is with the producer: from then on its outcome is what the broker says."""
        return self._acknowledging is not None

    async def publish(
        self, answer: Answer, snapshot: Snapshot, *, degraded: bool, probabilities: Mapping[LabelAction, float] | None = None
    ) -> None:
        """Check the decision once more and hand its signal over, or end the trigger; raise AnswerError when its prices collapse."""
        using, result, symbol = self._with, self._result, self._trigger.lane.symbol
        action = action_of(answer)
        priced = prices(answer, snapshot.close, snapshot.atr, self._book.instrument) if isinstance(answer, Entry) else None
        now_ms = using.clock.now_ms()
        halted = using.control.halted(symbol)
        result.control_offset = using.control.offset
        rejection = Rejection("halted", halted) if halted is not None else None
        rejection = rejection or using.tables.rejection_of(symbol, action, now_ms)
        rejection = rejection or using.guard.on_clock(using.publisher.skew.skew_ms)
        assert result.as_of is not None and result.prompt is not None and result.engine is not None  # noqa: S101, PT018 - set before it was asked
        ts_event_ms = result.as_of.market.ts_event_ms
        rejection = rejection or using.guard.on_action(symbol, action, ts_event_ms, now_ms)
        rejection = rejection or own_rejection(using.prompts.hooks, snapshot.view, action)
        if rejection is not None:
            result.end(Outcome.BLOCKED, rejection.rule, rejection.detail)
            return
        late_ms = now_ms - min(result.deadline_ms or 0, self._deadline.hand_over_ms())  # the skew may have been measured anew
        if late_ms > 0:
            result.end(Outcome.STALE, "deadline", f"the decision came {late_ms} ms after the deadline")
            return
        if self._book.epochs.version != snapshot.version:
            result.end(Outcome.STALE, "rewritten", "bars that the decision rests on were revised or rescaled while it was made")
            return
        basis = SignalBasis(
            using.settings.run_mode,
            snapshot,
            result.as_of,
            result.prompt,
            result.engine,
            result.cached_tokens,
            degraded,
            now_ms,
            result.stages_ms,
            probabilities,
        )
        signal = make_signal(self._trigger, self._book, basis, answer, priced)
        # Remembered before the hand-over: two decisions on one symbol must not pass the same rule while the producer makes them wait.
        using.guard.published(symbol, action, ts_event_ms, now_ms)
        try:
            sent = await using.publisher.hand_over(signal, self._trace.outputs)
        except BusError as error:
            result.end(Outcome.FAILED, "publish_failed", str(error))
            return
        result.signal = signal
        self._acknowledging = asyncio.create_task(self._acknowledge(sent), name=f"publish-{signal.signal_id}")
        self._on_handed_over(result.as_of)

    async def concluded(self) -> None:
        """Wait for the broker's word on the signal, and end the trigger as it says."""
        assert self._acknowledging is not None  # noqa: S101 - only once it is handed over
        result = self._result
        try:
            # Cancelling this decision must not keep a late acknowledgement from being followed by its cancel.
            publish_ms = await asyncio.shield(self._acknowledging)
        except BusError as error:
            result.end(Outcome.FAILED, "publish_unacknowledged", str(error))
            return
        except Exception:  # noqa: BLE001 - see below
            # Acknowledged; what failed is the bookkeeping around it.
            _log.exception("failed_after_acknowledgement", trigger_id=str(self._trigger.trigger_id))
            publish_ms = 0.0
        stages_ms = result.stages_ms
        stages_ms["publish"] = publish_ms
        result.outcome, result.reason = Outcome.PUBLISHED, None
        total_ms = self._acknowledged_ms - self._trigger.origin.ts_ms
        for stage, taken_ms in (*stages_ms.items(), ("total", total_ms)):
            metrics.STAGE_SECONDS.labels(stage).observe(taken_ms / 1000)

    async def _acknowledge(self, sent: SentSignal) -> float:
        started = self._with.clock.elapsed_s()
        with self._with.traffic.signal():
            await self._with.publisher.acknowledgements.wait(sent)
        self._acknowledged_ms = self._with.clock.now_ms()
        return round((self._with.clock.elapsed_s() - started) * 1000, 3)
