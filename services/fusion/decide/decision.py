"""One decision: from a trigger whose turn has come to how it ended, with a signal handed over as soon as its decision part is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

import structlog

from schemas import AsOf, Outcome, RunMode
from services.core import metrics
from services.core.bus import BusError
from services.core.clock import Clock
from services.core.settings import Settings
from services.fusion.decide.answer import Answer, AnswerError, AnswerReader, Entry, action_of, prices, sampling
from services.fusion.decide.control import ControlTable
from services.fusion.decide.ending import Ending
from services.fusion.decide.guard import Block, Guard
from services.fusion.decide.signals import Basis, Frame, make_signal
from services.fusion.deliver.publisher import Handed, Publisher
from services.fusion.deliver.skew import SkewMeter
from services.fusion.observe.spans import TriggerTrace
from services.fusion.prompt.builder import Plan, PromptBuilder
from services.fusion.state.book import Book
from services.fusion.state.triggers import Trigger
from services.inference.engine import Engine, EngineError, EngineRequest, Usage

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Parts:
    """What decisions are made with."""

    settings: Settings
    clock: Clock
    prompts: PromptBuilder
    engine: Engine
    fallback: Engine | None
    guard: Guard
    control: ControlTable
    publisher: Publisher
    skew: SkewMeter


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

    def __init__(self, parts: Parts, book: Book, trigger: Trigger, last_as_of: AsOf | None, trace: TriggerTrace) -> None:
        """`last_as_of` is the lane's last one published: a decision that rests on less is not published. `trace` goes along."""
        self._parts = parts
        self._book = book
        self._trigger = trigger
        self._last_as_of = last_as_of
        self._trace = trace
        self._ending = Ending(Outcome.FAILED)
        self._settling: asyncio.Task[float] | None = None
        """Set once the signal has been handed over; yields the milliseconds until it was acknowledged."""
        self._acknowledged_ms = 0
        self._repaired = False

    async def run(self, ready_ms: int) -> Ending:
        """Return how the trigger ended. `ready_ms` is when it began to wait for a permit alone."""
        ending, trigger = self._ending, self._trigger
        now_ms = self._parts.clock.now_ms()
        ending.stages_ms.update(
            fold=float(trigger.made_ms - trigger.origin.ts_ms),
            vision_wait=float(ready_ms - trigger.made_ms),
            queue=float(now_ms - ready_ms),
        )
        block = self._stop_before_asking()
        if block is not None:
            return self._end(Outcome.BLOCKED, block.rule, block.detail)
        if self._rests_on_less():
            return self._end(Outcome.STALE, "as_of_behind", "a decision that rests on later records has been published")
        late_ms = now_ms - (ending.deadline_ms or 0)
        if late_ms > 0:
            return self._end(Outcome.STALE, "deadline", f"its turn came {late_ms} ms after the deadline")
        await self._ask()
        if self._settling is not None:
            await self._settled(self._settling)
        return ending

    def _stop_before_asking(self) -> Block | None:
        """Take the book as it is now, and return why it is not asked about."""
        parts, book, trigger, ending = self._parts, self._book, self._trigger, self._ending
        market = book.market_ref
        assert market is not None  # noqa: S101 - a trigger comes from a folded record
        fusion = parts.settings.fusion
        ending.as_of = AsOf(market=market, vision=book.vision_ref)
        ending.control_offset = parts.control.offset
        halted = parts.control.halted(trigger.lane.symbol)
        if halted is not None:
            return Block("halted", halted)
        block = parts.guard.on_clock(parts.skew.skew_ms)
        if block is None:
            lag_ms = trigger.origin.ts_ms - trigger.origin.ts_event_ms
            metrics.EVENT_LAG_SECONDS.observe(lag_ms / 1000)
            block = parts.guard.on_book(book, trigger.lane.interval, lag_ms)
        if block is None:
            ending.deadline_ms = self._valid_until() - fusion.delivery_reserve_ms
        return block

    def _valid_until(self) -> int:
        """Return the last instant to open a position: as-of plus the interval's validity, capped at the session's close."""
        market = self._book.market_ref
        assert market is not None  # noqa: S101
        until_ms = market.ts_ms + self._parts.settings.fusion.entry_validity(self._trigger.lane.interval)
        close_ms = self._book.calendar.session_close_ms(market.ts_event_ms)
        # Event time and record time are apart in recorded data: what counts is how long the session still lasts after as-of.
        return until_ms if close_ms is None else min(until_ms, market.ts_ms + close_ms - market.ts_event_ms)

    def _rests_on_less(self) -> bool:
        last, now = self._last_as_of, self._ending.as_of
        if last is None or now is None:
            return False
        if now.market.offset < last.market.offset:
            return True
        return last.vision is not None and (now.vision is None or now.vision.offset < last.vision.offset)

    async def _ask(self) -> None:
        """Ask the engine, the stand-in where one is configured and the engine does not answer; fill in the ending."""
        parts, ending, lane = self._parts, self._ending, self._trigger.lane
        plan = parts.prompts.plan(self._book, lane.interval, lane.mode)
        ending.vision = plan.vision.state
        last_close_ms = self._book.bars[lane.interval].last_close_ms
        frame = Frame(plan.vision, plan.facts["close"], plan.facts["atr"], last_close_ms, self._valid_until(), self._book.version)
        watch = _Stopwatch(ending.stages_ms, parts.clock)
        try:
            async with _until(parts.clock, ending.deadline_ms or 0):
                ending.prompt = await parts.prompts.build(plan)
                watch.lap("prompt")
                for engine, degraded in ((parts.engine, False), (parts.fallback, True)):
                    if engine is None:
                        continue
                    try:
                        await self._ask_engine(engine, plan, frame, watch, degraded=degraded)
                    except EngineError as error:
                        metrics.ENGINE_FAILURES.labels(error.reason).inc()
                        if error.reason == "engine_timeout":
                            self._too_late(error.detail)
                        else:
                            self._end(Outcome.FAILED, error.reason, error.detail)
                        if self._settling is not None:
                            return  # the decision had left already; only the rationale is lost
                        continue
                    return
        except TimeoutError:
            if self._settling is None:
                self._too_late("the deadline passed before a decision was complete")
        finally:
            ending.answering_ms = watch.since_ms("prompt")

    def _too_late(self, detail: str) -> None:
        """End the same way whether the engine's client or the decision itself was the first to see the deadline pass."""
        if "first_token" in self._ending.stages_ms:
            self._end(Outcome.STALE, "deadline", detail)
        else:
            self._end(Outcome.FAILED, "engine_timeout", detail)

    async def _ask_engine(self, engine: Engine, plan: Plan, frame: Frame, watch: _Stopwatch, *, degraded: bool) -> None:
        parts, ending = self._parts, self._ending
        prompt = ending.prompt
        assert prompt is not None  # noqa: S101 - set by the caller
        ending.engine = await engine.info()
        if ending.engine.source == "simulator" and parts.settings.run_mode is RunMode.LIVE:
            raise EngineError("engine_refused", f"run mode live never acts on the simulator, which {ending.engine.name} is")
        fusion, mode = parts.settings.fusion, self._trigger.lane.mode
        request = EngineRequest(
            rid=uuid4().hex,
            affinity=self._trigger.lane.symbol,
            mode=mode,
            input_ids=prompt.ids,
            sampling=sampling(fusion, mode),
            deadline_ms=ending.deadline_ms or 0,
            text=lambda: parts.prompts.text(plan),
            view=plan.facts,
            trace_headers=self._trace.call,
        )
        try:
            await self._read(engine, request, frame, watch, degraded=degraded)
        except AnswerError as error:
            if self._settling is not None:
                ending.detail = f"after the decision had left: {error}"
                return
            if not fusion.repair or self._repaired or not engine.accepts_ids:
                self._end(Outcome.FAILED, error.reason, error.detail)
                return
            self._repaired = True
            again = parts.prompts.repair(prompt, ending.answer or "", self._trigger.lane.mode)
            repair = replace(request, rid=uuid4().hex, input_ids=again)
            try:
                await self._read(engine, repair, frame, watch, degraded=degraded)
            except AnswerError as second:
                if self._settling is None:
                    self._end(Outcome.FAILED, second.reason, f"also when asked again: {second.detail}")

    async def _read(self, engine: Engine, request: EngineRequest, frame: Frame, watch: _Stopwatch, *, degraded: bool) -> None:
        """Read one answer, handing the signal over as soon as its decision part is there."""
        ending = self._ending
        ending.usage = None
        reader = AnswerReader(thinking=request.mode == "deep")
        first_at = 0.0
        async with aclosing(engine.stream(request)) as chunks:
            async for chunk in chunks:
                if not first_at and chunk.text:
                    first_at = self._parts.clock.elapsed_s()
                    watch.lap("first_token")
                if chunk.cached_tokens is not None:
                    ending.cached_tokens = chunk.cached_tokens
                if chunk.usage is not None:
                    self._used(chunk.usage, first_at)
                try:
                    complete = reader.feed(chunk.text)
                finally:
                    ending.answer = reader.text
                if complete and reader.decision is not None:
                    watch.lap("decision")
                    await self._decide(reader.decision, frame, degraded=degraded)
                    if self._settling is None:
                        return  # blocked or stale: closing the stream ends the call on the engine
        answer = reader.finish(ending.usage.finish_reason if ending.usage else None)
        if reader.decision is None:
            watch.lap("decision")
            await self._decide(answer, frame, degraded=degraded)

    def _used(self, usage: Usage, first_at: float) -> None:
        self._ending.usage = usage
        purpose = "repair" if self._repaired else "decision"
        metrics.PROMPT_TOKENS.labels(purpose).inc(usage.prompt_tokens)
        metrics.OUTPUT_TOKENS.inc(usage.output_tokens)
        if usage.cached_tokens is not None:
            self._ending.cached_tokens = usage.cached_tokens
            metrics.CACHED_TOKENS.labels(purpose).inc(usage.cached_tokens)
        if usage.accept_length is not None:
            metrics.ACCEPT_LENGTH.observe(usage.accept_length)
        if first_at:
            metrics.DECODE_SECONDS.inc(self._parts.clock.elapsed_s() - first_at)

    async def _decide(self, answer: Answer, frame: Frame, *, degraded: bool) -> None:
        """Guard the decision and hand its signal over."""
        parts, ending, symbol = self._parts, self._ending, self._trigger.lane.symbol
        action = action_of(answer)
        priced = prices(answer, frame.close, frame.atr, self._book.instrument.price_increment) if isinstance(answer, Entry) else None
        now_ms = parts.clock.now_ms()
        halted = parts.control.halted(symbol)
        ending.control_offset = parts.control.offset
        block = Block("halted", halted) if halted is not None else None
        block = block or parts.guard.on_clock(parts.skew.skew_ms)
        assert ending.as_of is not None and ending.prompt is not None and ending.engine is not None  # noqa: S101, PT018 - set before it was asked
        ts_event_ms = ending.as_of.market.ts_event_ms
        block = block or parts.guard.on_action(symbol, action, ts_event_ms, now_ms)
        if block is not None:
            self._end(Outcome.BLOCKED, block.rule, block.detail)
            return
        if now_ms > (ending.deadline_ms or 0):
            self._end(Outcome.STALE, "deadline", f"the decision came {now_ms - (ending.deadline_ms or 0)} ms after the deadline")
            return
        if self._book.version != frame.version:
            self._end(Outcome.STALE, "rewritten", "bars that the decision rests on were revised or rescaled while it was made")
            return
        basis = Basis(
            parts.settings.run_mode,
            frame,
            ending.as_of,
            ending.prompt,
            ending.engine,
            ending.cached_tokens,
            degraded,
            now_ms,
            ending.stages_ms,
        )
        signal = make_signal(self._trigger, self._book, basis, answer, priced)
        # Remembered before it leaves: two decisions on one symbol must not pass the same rule while the producer makes them wait.
        parts.guard.published(symbol, action, ts_event_ms, now_ms)
        try:
            handed = await parts.publisher.hand_over(signal, self._trace.outputs)
        except BusError as error:
            self._end(Outcome.FAILED, "publish_failed", str(error))
            return
        ending.signal = signal
        self._settling = asyncio.create_task(self._settle(handed), name=f"settle-{signal.signal_id}")

    async def _settle(self, handed: Handed) -> float:
        started = self._parts.clock.elapsed_s()
        await self._parts.publisher.settle(handed)
        self._acknowledged_ms = self._parts.clock.now_ms()
        return round((self._parts.clock.elapsed_s() - started) * 1000, 3)

    async def _settled(self, settling: asyncio.Task[float]) -> None:
        try:
            # Somebody who gives this decision up must not keep a late acknowledgement from being followed by its cancel.
            publish_ms = await asyncio.shield(settling)
        except BusError as error:
            self._end(Outcome.FAILED, "publish_unacknowledged", str(error))
            return
        stages_ms = self._ending.stages_ms
        stages_ms["publish"] = publish_ms
        self._ending.outcome, self._ending.reason = Outcome.PUBLISHED, None
        total_ms = self._acknowledged_ms - self._trigger.origin.ts_ms
        for stage, taken_ms in (*stages_ms.items(), ("total", total_ms)):
            metrics.STAGE_SECONDS.labels(stage).observe(taken_ms / 1000)

    def _end(self, outcome: Outcome, reason: str, detail: str) -> Ending:
        ending = self._ending
        ending.outcome, ending.reason, ending.detail = outcome, reason, detail
        return ending


@asynccontextmanager
async def _until(clock: Clock, at_ms: int) -> AsyncIterator[None]:
    """Raise TimeoutError in the body once `clock` has reached `at_ms`."""
    async with asyncio.timeout(None) as timeout:

        async def expire() -> None:
            await clock.sleep_until(at_ms)
            timeout.reschedule(asyncio.get_running_loop().time())

        task = asyncio.create_task(expire())
        try:
            yield
        finally:
            task.cancel()
