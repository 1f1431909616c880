"""One trigger's question to an engine: the answer is read as it streams in, or scored in mode `flash`, and its signal published at once."""

from __future__ import annotations

from contextlib import ExitStack, aclosing
from dataclasses import replace
from uuid import uuid4

from schemas import Outcome
from services.core import metrics
from services.fusion.decide.answer import Abstain, AnswerError, AnswerReader, sampling
from services.fusion.decide.decision_dependencies import DecisionDependencies
from services.fusion.decide.flash import flash_answer, label_shares
from services.fusion.decide.guard import forbidden_engine
from services.fusion.decide.publication import Publication
from services.fusion.decide.rationale import explain_label, may_explain
from services.fusion.decide.signals import Snapshot
from services.fusion.decide.stopwatch import Stopwatch
from services.fusion.decide.thinking import Thought, think
from services.fusion.observe.result import TriggerResult
from services.fusion.observe.spans import TriggerTrace
from services.fusion.prompt.builder import Plan, Prompt
from services.fusion.prompt.labels import LabelAction
from services.fusion.state.triggers import Trigger
from services.inference.engine import Chunk, Engine, EngineError, EngineInfo, EngineRequest, Usage


class Asking:
    """Asks one question, of one engine after the other, and fills in the trigger's result."""

    def __init__(
        self,
        dependencies: DecisionDependencies,
        trigger: Trigger,
        plan: Plan,
        prompt: Prompt,
        snapshot: Snapshot,
        *,
        result: TriggerResult,
        publication: Publication,
        watch: Stopwatch,
        trace: TriggerTrace,
    ) -> None:
        """`snapshot` is the book as `plan` shows it, `prompt` its ids."""
        self._with = dependencies
        self._trigger = trigger
        self._plan = plan
        self._prompt = prompt
        self._snapshot = snapshot
        self._result = result
        self._publication = publication
        self._watch = watch
        self._trace = trace
        self._repaired = False

    async def ask(self, engine: Engine, *, degraded: bool) -> None:
        """Ask `engine`, once more where the answer cannot be used; raise EngineError. `degraded` marks a stand-in's signal."""
        using, result, fusion = self._with, self._result, self._with.settings.fusion
        mode = self._trigger.lane.mode
        labels = using.prompts.first_words if mode == "fast" and engine.capabilities.logprobs else None
        request = EngineRequest(
            rid=uuid4().hex,
            affinity=self._trigger.lane.symbol,
            mode=mode,
            input_ids=self._prompt.ids,
            sampling=sampling(fusion, mode, self._trigger.trigger_id),
            deadline_ms=result.deadline_ms or 0,
            text=lambda: using.prompts.text(self._plan),
            view=self._plan.facts,
            trace_headers=self._trace.call,
            labels=None if labels is None else labels.ids,
        )
        if mode == "flash" and engine.capabilities.logprobs:
            await self._score(engine, request, degraded=degraded)
            return
        thought: Thought | None = None
        if mode == "deep" and engine.capabilities.token_ids:
            thought, request = await self._think(engine, request)
        try:
            await self._read(engine, request, thought, degraded=degraded)
        except AnswerError as error:
            if self._publication.handed_over:
                result.detail = f"after the signal was published: {error}"
                return
            if not fusion.repair or self._repaired or not engine.capabilities.token_ids:
                result.end(Outcome.FAILED, error.reason, error.detail)
                return
            self._repaired = True
            bad = (result.answer or "").removeprefix("" if thought is None else thought.before_answer)
            again = using.prompts.repair(request.input_ids, bad, "fast" if mode == "deep" else mode)
            try:
                await self._read(engine, replace(request, rid=uuid4().hex, input_ids=again), thought, degraded=degraded)
            except AnswerError as second:
                if not self._publication.handed_over:
                    result.end(Outcome.FAILED, second.reason, f"also when asked again: {second.detail}")

    async def _think(self, engine: Engine, request: EngineRequest) -> tuple[Thought, EngineRequest]:
        """Have the model think, within its budget, and return the thought and the request for the answer."""
        using, result = self._with, self._result
        result.engine, result.answer = None, ""
        result.answer_chunks.clear()
        first_at = 0.0

        async def took(chunk: Chunk) -> None:
            nonlocal first_at
            if result.engine is None:
                self._answered_by(chunk.engine or await engine.info())
            if not first_at and chunk.text:
                first_at = using.clock.elapsed_s()
                self._first_token()
            result.answer = (result.answer or "") + chunk.text
            self._arrived(chunk)
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

    async def _read(self, engine: Engine, request: EngineRequest, thought: Thought | None, *, degraded: bool) -> None:
        """Read one answer, handing the signal over as soon as its decision part is there."""
        result, publication = self._result, self._publication
        result.usage = None
        result.engine = None
        before = "" if thought is None else thought.before_answer
        # Of an answer that is asked for again, or of another engine, only the thought before it stays.
        result.answer_chunks = [one for one in result.answer_chunks if one[1] <= len(before)]
        reader = AnswerReader(thinking=request.mode == "deep" and thought is None)
        first_at = 0.0
        probabilities: dict[LabelAction, float] | None = None
        with ExitStack() as explaining:
            async with aclosing(engine.stream(request)) as chunks:
                async for chunk in chunks:
                    if result.engine is None:
                        self._answered_by(chunk.engine or await engine.info())
                    if not first_at and chunk.text:
                        first_at = self._with.clock.elapsed_s()
                        if "first_token" not in result.stages_ms or thought is None:
                            self._first_token()
                    if chunk.cached_tokens is not None and thought is None:
                        result.cached_tokens = chunk.cached_tokens
                    if chunk.usage is not None:
                        self._used(chunk.usage, first_at, thought)
                        self._refuse_cut_prompt(engine, request, chunk.usage)
                    probabilities = probabilities or self._shares(chunk)
                    try:
                        complete = reader.feed(chunk.text)
                    finally:
                        result.answer = before + reader.text
                        self._arrived(chunk)
                    if complete and reader.decision is not None:
                        self._decided()
                        await publication.publish(reader.decision, self._snapshot, degraded=degraded, probabilities=probabilities)
                        if not publication.handed_over or not may_explain(self._with):
                            return  # closing the stream ends the call on the engine
                        explaining.enter_context(self._with.traffic.rationale())
        answer = reader.finish(result.usage.finish_reason if result.usage else None)
        if reader.decision is None:
            self._decided()
            await publication.publish(answer, self._snapshot, degraded=degraded, probabilities=probabilities)

    async def _score(self, engine: Engine, request: EngineRequest, *, degraded: bool) -> None:
        """Ask for one token with the labels' log-probabilities, hand the signal over, and ask why when the engine has time."""
        using, result = self._with, self._result
        result.engine = None
        scores = await engine.score(request, using.prompts.labels.ids)
        self._answered_by(scores.engine or await engine.info())
        self._first_token()
        self._used(scores.usage, 0.0)
        self._refuse_cut_prompt(engine, request, scores.usage)
        flash = flash_answer(scores.logprobs, using.prompts.labels, using.settings.fusion)
        result.answer = flash.text()
        self._decided()
        try:
            await self._publication.publish(flash.answer, self._snapshot, degraded=degraded, probabilities=flash.probabilities)
        except AnswerError as error:
            result.end(Outcome.FAILED, error.reason, error.detail)
            return
        if self._publication.handed_over and not isinstance(flash.answer, Abstain):
            why = await explain_label(using, engine, request, self._prompt, using.prompts.labels.texts[flash.first])
            result.answer = flash.text(why)

    def _first_token(self) -> None:
        self._watch.lap("first_token")
        self._with.admission.first_token(self._trigger)

    def _decided(self) -> None:
        self._watch.lap("decision")
        self._with.admission.answered(self._trigger, self._result)

    def _arrived(self, chunk: Chunk) -> None:
        """Keep when a piece of the answer arrived, for the audit."""
        if chunk.text:
            self._result.answer_chunks.append((round(self._watch.since_ms("prompt")), len(self._result.answer or "")))

    def _shares(self, chunk: Chunk) -> dict[LabelAction, float] | None:
        labels = self._with.prompts.first_words
        return None if chunk.logprobs is None or labels is None else label_shares(chunk.logprobs, labels)

    def _answered_by(self, engine: EngineInfo) -> None:
        """Take the engine that answers into the audit; raise EngineError when its answers must not be acted on."""
        self._result.engine = engine
        forbidden = forbidden_engine(self._with.settings.run_mode, engine)
        if forbidden is not None:
            raise EngineError("engine_refused", forbidden)

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
