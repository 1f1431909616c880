"""One decision: guard, prompt, engine and answer of a trigger whose turn has come; its signal is handed over before the rationale ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from uuid import uuid4

import structlog

from schemas import AsOf, Outcome
from services.core import metrics
from services.core.bus import BusError
from services.core.clock import Clock
from services.core.settings import Settings
from services.fusion.decide.answer import Answer, AnswerError, AnswerReader, Entry, action_of, prices, sampling
from services.fusion.decide.control import ControlTable
from services.fusion.decide.deadline import until
from services.fusion.decide.flash import flash_answer
from services.fusion.decide.guard import Guard, Rejection, forbidden_engine
from services.fusion.decide.signals import SignalBasis, Snapshot, make_signal
from services.fusion.decide.thinking import Thought, think
from services.fusion.deliver.publisher import Publisher, SentSignal
from services.fusion.observe.result import TriggerResult
from services.fusion.observe.spans import TriggerTrace
from services.fusion.prompt.builder import Plan, PromptBuilder
from services.fusion.prompt.labels import LabelAction
from services.fusion.state.book import Book
from services.fusion.state.triggers import Trigger
from services.inference.engine import Chunk, Engine, EngineError, EngineInfo, EngineRequest, Usage

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DecisionDependencies:
    """What every decision of a worker is made with."""

    settings: Settings
    clock: Clock
    prompts: PromptBuilder
    engine: Engine
    fallback: Engine | None
    guard: Guard
    control: ControlTable
    publisher: Publisher


class _Stopwatch:
    """Milliseconds by stage."""

    def __init__(self, stages_ms: dict[str, float], clock: Clock) -> None:
        self._stages_ms = stages_ms
        self._clock = clock
        self._last = self._first = clock.elapsed_s()

    def lap(self, stage: str) -> None:
        """End a stage: it took the time since the last one ended."""
        now = self._clock.elapsed_s()
        self._stages_ms[stage] = round((now - self._last) * 1000, 3)
        self._last = now

    def since_ms(self, stage: str) -> float:
        """Return the time since the first stage, `stage`, ended."""
        return (self._clock.elapsed_s() - self._first) * 1000 - self._stages_ms.get(stage, 0.0)


class Decision:
    """One trigger's way through prompt, engine, guard and producer."""

    def __init__(
        self, dependencies: DecisionDependencies, book: Book, trigger: Trigger, last_as_of: AsOf | None, trace: TriggerTrace
    ) -> None:
        """`last_as_of` is the lane's last one published: a decision that rests on less is not published. `trace` goes along."""
        self._with = dependencies
        self._book = book
        self._trigger = trigger
        self._last_as_of = last_as_of
        self._trace = trace
        self._result = TriggerResult(Outcome.FAILED)
        self._publishing: asyncio.Task[float] | None = None
        """Set once the signal has been handed over; yields the milliseconds until it was acknowledged."""
        self._acknowledged_ms = 0
        self._repaired = False

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
            if self._publishing is None:
                raise
            # The signal is on its way: its outcome is what the broker says of it, whatever fails in reading the rationale.
            _log.exception("failed_after_hand_over", symbol=trigger.lane.symbol, trigger_id=str(trigger.trigger_id))
            result.detail = f"after the signal was published: {type(error).__name__}: {error}"
        if self._publishing is not None:
            await self._published(self._publishing)
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
        halted = using.control.halted(trigger.lane.symbol)
        if halted is not None:
            return Rejection("halted", halted)
        rejection = using.guard.on_clock(using.publisher.skew.skew_ms)
        if rejection is None:
            lag_ms = trigger.origin.ts_ms - trigger.origin.ts_event_ms
            metrics.EVENT_LAG_SECONDS.observe(lag_ms / 1000)
            rejection = using.guard.on_book(book, trigger.lane.interval, lag_ms, using.control.state.resumed_ms(trigger.lane.symbol))
        if rejection is None:
            result.deadline_ms = self._deadline()
        return rejection

    def _deadline(self) -> int:
        """Return the last moment on the worker's clock to hand the signal over; records and validity are timed by the broker's."""
        deadline_ms = self._valid_until() - self._with.settings.fusion.delivery_reserve_ms
        # A record that was folded before it was appended shows that the worker's clock is behind, also before any acknowledgement.
        skew_ms = min(self._with.publisher.skew.skew_ms, self._trigger.made_ms - self._trigger.origin.ts_ms)
        return deadline_ms + skew_ms

    def _valid_until(self) -> int:
        """Return the last instant to open a position, on the broker's clock: as-of plus the validity, capped at the session's close."""
        market = self._book.market_ref
        assert market is not None  # noqa: S101
        until_ms = market.ts_ms + self._with.settings.fusion.entry_validity(self._trigger.lane.interval)
        close_ms = self._book.calendar.session_close_ms(market.ts_event_ms)
        # Event time and record time are apart in recorded data: what counts is how long the session still lasts after as-of.
        return until_ms if close_ms is None else min(until_ms, market.ts_ms + close_ms - market.ts_event_ms)

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
        plan = using.prompts.plan(self._book, lane.interval, lane.mode)
        result.vision = plan.vision.state
        last_close_ms = self._book.bars[lane.interval].last_close_ms
        snapshot = Snapshot(plan.vision, plan.facts["close"], plan.facts["atr"], last_close_ms, self._valid_until(), self._book.version)
        watch = _Stopwatch(result.stages_ms, using.clock)
        try:
            async with until(using.clock, result.deadline_ms or 0):
                result.prompt = await using.prompts.build(plan)
                watch.lap("prompt")
                for engine, degraded in ((using.engine, False), (using.fallback, True)):
                    if engine is None:
                        continue
                    try:
                        await self._ask_engine(engine, plan, snapshot, watch, degraded=degraded)
                    except EngineError as error:
                        metrics.ENGINE_FAILURES.labels(error.reason).inc()
                        if error.reason == "engine_timeout":
                            self._too_late(error.detail)
                        else:
                            self._end(Outcome.FAILED, error.reason, error.detail)
                        if self._publishing is not None:
                            return  # the signal is published already; only the rationale is lost
                        continue
                    return
        except TimeoutError:
            if self._publishing is None:
                self._too_late("the deadline passed before a decision was complete")
        finally:
            result.answering_ms = watch.since_ms("prompt")

    def _too_late(self, detail: str) -> None:
        """End the same way whether the engine's client or the decision itself was the first to see the deadline pass."""
        if "first_token" in self._result.stages_ms:
            self._end(Outcome.STALE, "deadline", detail)
        else:
            self._end(Outcome.FAILED, "engine_timeout", detail)

    async def _ask_engine(self, engine: Engine, plan: Plan, snapshot: Snapshot, watch: _Stopwatch, *, degraded: bool) -> None:
        using, result = self._with, self._result
        prompt = result.prompt
        assert prompt is not None  # noqa: S101 - set by the caller
        fusion, mode = using.settings.fusion, self._trigger.lane.mode
        request = EngineRequest(
            rid=uuid4().hex,
            affinity=self._trigger.lane.symbol,
            mode=mode,
            input_ids=prompt.ids,
            sampling=sampling(fusion, mode, self._trigger.trigger_id),
            deadline_ms=result.deadline_ms or 0,
            text=lambda: using.prompts.text(plan),
            view=plan.facts,
            trace_headers=self._trace.call,
        )
        if mode == "flash" and engine.capabilities.logprobs:
            await self._score(engine, request, snapshot, watch, degraded=degraded)
            return
        thought: Thought | None = None
        if mode == "deep" and engine.capabilities.token_ids:
            thought, request = await self._think(engine, request, watch)
        try:
            await self._read(engine, request, snapshot, watch, thought, degraded=degraded)
        except AnswerError as error:
            if self._publishing is not None:
                result.detail = f"after the signal was published: {error}"
                return
            if not fusion.repair or self._repaired or not engine.capabilities.token_ids:
                self._end(Outcome.FAILED, error.reason, error.detail)
                return
            self._repaired = True
            bad = (result.answer or "").removeprefix("" if thought is None else thought.before_answer)
            again = using.prompts.repair(request.input_ids, bad, "fast" if mode == "deep" else mode)
            repair = replace(request, rid=uuid4().hex, input_ids=again)
            try:
                await self._read(engine, repair, snapshot, watch, thought, degraded=degraded)
            except AnswerError as second:
                if self._publishing is None:
                    self._end(Outcome.FAILED, second.reason, f"also when asked again: {second.detail}")

    async def _think(self, engine: Engine, request: EngineRequest, watch: _Stopwatch) -> tuple[Thought, EngineRequest]:
        """Have the model think, within its budget, and return the thought and the request for the answer."""
        using, result = self._with, self._result
        result.engine, result.answer = None, ""
        first_at = 0.0

        async def took(chunk: Chunk) -> None:
            nonlocal first_at
            if result.engine is None:
                self._answered_by(chunk.engine or await engine.info())
            if not first_at and chunk.text:
                first_at = using.clock.elapsed_s()
                watch.lap("first_token")
            result.answer = (result.answer or "") + chunk.text
            if chunk.cached_tokens is not None:
                result.cached_tokens = chunk.cached_tokens
            if chunk.usage is not None:
                self._used(chunk.usage, first_at)
                self._refuse_cut_prompt(engine, request, chunk.usage)

        thought, answering = await think(
            engine,
            request,
            prompts=using.prompts,
            settings=using.settings.fusion,
            clock=using.clock,
            seed_of=self._trigger.trigger_id,
            took=took,
        )
        result.thought_tokens, result.thought_cut = thought.tokens, thought.cut
        return thought, answering

    async def _read(
        self, engine: Engine, request: EngineRequest, snapshot: Snapshot, watch: _Stopwatch, thought: Thought | None, *, degraded: bool
    ) -> None:
        """Read one answer, handing the signal over as soon as its decision part is there."""
        result = self._result
        result.usage = None
        result.engine = None
        before = "" if thought is None else thought.before_answer
        reader = AnswerReader(thinking=request.mode == "deep" and thought is None)
        first_at = 0.0
        async with aclosing(engine.stream(request)) as chunks:
            async for chunk in chunks:
                if result.engine is None:
                    self._answered_by(chunk.engine or await engine.info())
                if not first_at and chunk.text:
                    first_at = self._with.clock.elapsed_s()
                    if "first_token" not in result.stages_ms or thought is None:
                        watch.lap("first_token")
                if chunk.cached_tokens is not None and thought is None:
                    result.cached_tokens = chunk.cached_tokens
                if chunk.usage is not None:
                    self._used(chunk.usage, first_at, thought)
                    self._refuse_cut_prompt(engine, request, chunk.usage)
                try:
                    complete = reader.feed(chunk.text)
                finally:
                    result.answer = before + reader.text
                if complete and reader.decision is not None:
                    watch.lap("decision")
                    await self._decide(reader.decision, snapshot, degraded=degraded)
                    if self._publishing is None:
                        return  # blocked or stale: closing the stream ends the call on the engine
        answer = reader.finish(result.usage.finish_reason if result.usage else None)
        if reader.decision is None:
            watch.lap("decision")
            await self._decide(answer, snapshot, degraded=degraded)

    def _answered_by(self, engine: EngineInfo) -> None:
        """Take the engine that answers into the audit; raise EngineError when its answers must not be acted on."""
        self._result.engine = engine
        forbidden = forbidden_engine(self._with.settings.run_mode, engine)
        if forbidden is not None:
            raise EngineError("engine_refused", forbidden)

    async def _score(self, engine: Engine, request: EngineRequest, snapshot: Snapshot, watch: _Stopwatch, *, degraded: bool) -> None:
        """Ask for one token with the labels' log-probabilities, and hand the signal over."""
        using, result = self._with, self._result
        result.engine = None
        scores = await engine.score(request, using.prompts.labels.ids)
        self._answered_by(scores.engine or await engine.info())
        watch.lap("first_token")
        self._used(scores.usage, 0.0)
        self._refuse_cut_prompt(engine, request, scores.usage)
        flash = flash_answer(scores.logprobs, using.prompts.labels, using.settings.fusion)
        result.answer = flash.text
        watch.lap("decision")
        try:
            await self._decide(flash.answer, snapshot, degraded=degraded, probabilities=flash.probabilities)
        except AnswerError as error:
            self._end(Outcome.FAILED, error.reason, error.detail)

    def _refuse_cut_prompt(self, engine: Engine, request: EngineRequest, usage: Usage) -> None:
        """Raise EngineError when the engine read fewer tokens than it was sent; engines that are told text count otherwise."""
        if engine.capabilities.token_ids and usage.prompt_tokens < request.input_ids.size:
            raise EngineError("prompt_cut", f"{engine.name} read {usage.prompt_tokens:,} of the prompt's {request.input_ids.size:,} tokens")

    def _used(self, usage: Usage, first_at: float, thought: Thought | None = None) -> None:
        """Count what a call used; after a thought the audit has the tokens of both calls, and the first one's share of cached ones."""
        thought_tokens = 0 if thought is None else thought.tokens
        self._result.usage = replace(usage, output_tokens=usage.output_tokens + thought_tokens)
        purpose = "repair" if self._repaired else "decision"
        metrics.PROMPT_TOKENS.labels(purpose).inc(usage.prompt_tokens)
        metrics.OUTPUT_TOKENS.inc(usage.output_tokens)
        if usage.cached_tokens is not None:
            if thought is None:
                self._result.cached_tokens = usage.cached_tokens
            metrics.CACHED_TOKENS.labels(purpose).inc(usage.cached_tokens)
        if usage.accept_length is not None:
            metrics.ACCEPT_LENGTH.observe(usage.accept_length)
        if first_at:
            metrics.DECODE_SECONDS.inc(self._with.clock.elapsed_s() - first_at)

    async def _decide(
        self, answer: Answer, snapshot: Snapshot, *, degraded: bool, probabilities: Mapping[LabelAction, float] | None = None
    ) -> None:
        """Guard the decision and hand its signal over."""
        using, result, symbol = self._with, self._result, self._trigger.lane.symbol
        action = action_of(answer)
        priced = prices(answer, snapshot.close, snapshot.atr, self._book.instrument) if isinstance(answer, Entry) else None
        now_ms = using.clock.now_ms()
        halted = using.control.halted(symbol)
        result.control_offset = using.control.offset
        rejection = Rejection("halted", halted) if halted is not None else None
        rejection = rejection or using.guard.on_clock(using.publisher.skew.skew_ms)
        assert result.as_of is not None and result.prompt is not None and result.engine is not None  # noqa: S101, PT018 - set before it was asked
        ts_event_ms = result.as_of.market.ts_event_ms
        rejection = rejection or using.guard.on_action(symbol, action, ts_event_ms, now_ms)
        if rejection is not None:
            self._end(Outcome.BLOCKED, rejection.rule, rejection.detail)
            return
        late_ms = now_ms - min(result.deadline_ms or 0, self._deadline())  # the skew may have been measured anew
        if late_ms > 0:
            self._end(Outcome.STALE, "deadline", f"the decision came {late_ms} ms after the deadline")
            return
        if self._book.version != snapshot.version:
            self._end(Outcome.STALE, "rewritten", "bars that the decision rests on were revised or rescaled while it was made")
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
            self._end(Outcome.FAILED, "publish_failed", str(error))
            return
        result.signal = signal
        self._publishing = asyncio.create_task(self._acknowledged(sent), name=f"publish-{signal.signal_id}")

    async def _acknowledged(self, sent: SentSignal) -> float:
        started = self._with.clock.elapsed_s()
        await self._with.publisher.acknowledged(sent)
        self._acknowledged_ms = self._with.clock.now_ms()
        return round((self._with.clock.elapsed_s() - started) * 1000, 3)

    async def _published(self, publishing: asyncio.Task[float]) -> None:
        try:
            # Cancelling this decision must not keep a late acknowledgement from being followed by its cancel.
            publish_ms = await asyncio.shield(publishing)
        except BusError as error:
            self._end(Outcome.FAILED, "publish_unacknowledged", str(error))
            return
        except Exception:  # noqa: BLE001 - see below
            # Acknowledged; what failed is the bookkeeping around it.
            _log.exception("failed_after_acknowledgement", trigger_id=str(self._trigger.trigger_id))
            publish_ms = 0.0
        stages_ms = self._result.stages_ms
        stages_ms["publish"] = publish_ms
        self._result.outcome, self._result.reason = Outcome.PUBLISHED, None
        total_ms = self._acknowledged_ms - self._trigger.origin.ts_ms
        for stage, taken_ms in (*stages_ms.items(), ("total", total_ms)):
            metrics.STAGE_SECONDS.labels(stage).observe(taken_ms / 1000)

    def _end(self, outcome: Outcome, reason: str, detail: str) -> TriggerResult:
        result = self._result
        result.outcome, result.reason, result.detail = outcome, reason, detail
        return result
