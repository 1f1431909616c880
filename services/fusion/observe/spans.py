"""A trigger's trace and spans: fold, wait, prompt, engine and publish, made from the measured times once the trigger has ended.

The trace's ids are chosen when the trigger is made, so that its signal, audit record and engine call carry them as parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from opentelemetry.trace import SpanContext, SpanKind

from schemas import OffsetRef, Outcome
from services.core.bus import Headers, Record
from services.core.tracing import Tracer, extract, inject, inject_text, trace_id
from services.fusion.observe.result import TriggerResult
from services.fusion.state.triggers import Trigger

_SHOWN: Final = 200


class _Seen(NamedTuple):
    topic: str
    offset: int
    headers: Headers


@dataclass(slots=True)
class TriggerTrace:
    """The trace that a trigger belongs to: where it comes from, and where this worker's own spans of it will be."""

    parent: SpanContext | None = None
    own: SpanContext | None = None
    engine: SpanContext | None = None
    rests_on: tuple[_Seen, ...] = ()
    """The newest records of its symbol in both inputs when its decision began, where they came with headers."""

    @property
    def outputs(self) -> Headers:
        """Return the headers of the records that the trigger gives rise to."""
        return inject(self.own or self.parent)

    @property
    def call(self) -> dict[str, str]:
        """Return the HTTP headers of the engine's call."""
        return inject_text(self.engine or self.parent)

    @property
    def trace_id(self) -> str | None:
        """Return the trace's id for logs, None without a trace."""
        return trace_id(self.own or self.parent)


class TriggerSpans:
    """Makes the traces of a worker's triggers, and records their spans where there is a tracer."""

    def __init__(self, tracer: Tracer | None, inputs: tuple[str, str]) -> None:
        """Without a tracer nothing is recorded. `inputs` are the two topics that decisions rest on."""
        self._tracer = tracer
        self._inputs = inputs
        self._seen: dict[tuple[str, bytes | None], _Seen] = {}

    @property
    def enabled(self) -> bool:
        """Return whether spans are recorded at all."""
        return self._tracer is not None

    def begin(self, record: Record) -> TriggerTrace:
        """Return the trace of a trigger that `record` made."""
        parent = extract(record.headers) if record.headers else None
        if self._tracer is None:
            return TriggerTrace(parent)
        own = self._tracer.root() if parent is None else self._tracer.child(parent)
        return TriggerTrace(parent, own, self._tracer.child(own))

    def folded(self, records: Iterable[Record]) -> None:
        """Remember the headers of records that were folded into their symbols' books; they are read when a decision rests on one."""
        for record in records:
            if record.headers:
                self._seen[record.topic, record.key] = _Seen(record.topic, record.offset, record.headers)

    def forget(self, symbol: str) -> None:
        """Drop what is remembered of `symbol`."""
        for topic in self._inputs:
            self._seen.pop((topic, symbol.encode()), None)

    def rests_on(self, trace: TriggerTrace, symbol: str) -> None:
        """Note what a decision that begins now rests on."""
        if self._seen:
            found = (self._seen.get((topic, symbol.encode())) for topic in self._inputs)
            trace.rests_on = tuple(seen for seen in found if seen is not None)

    def end(self, trigger: Trigger, trace: TriggerTrace, result: TriggerResult, done_ms: int) -> None:
        """Record the spans of a trigger that has ended."""
        tracer, own = self._tracer, trace.own
        if tracer is None or own is None or not own.trace_flags.sampled:
            return
        failed = _text(f"{result.reason}: {result.detail}") if result.outcome is Outcome.FAILED else None
        tracer.record(
            "trigger",
            own,
            trace.parent,
            trigger.origin.ts_ms,
            done_ms,
            kind=SpanKind.CONSUMER,
            attributes=dict(_about(trigger, result)),
            links=_links(trace, result),
            error=failed,
        )

        def part(name: str, start_ms: float, end_ms: float, kind: SpanKind = SpanKind.INTERNAL, **told: str | float) -> None:
            tracer.record(
                name,
                tracer.child(own),
                own,
                start_ms,
                end_ms,
                kind=kind,
                attributes={f"aquiline.{key}": value for key, value in told.items()},
            )

        stages = result.stages_ms
        part("fold", trigger.origin.ts_ms, trigger.made_ms)
        if "queue" not in stages:
            part("wait", trigger.made_ms, done_ms)
            return  # never had its turn
        turn_ms = trigger.made_ms + stages["vision_wait"] + stages["queue"]
        part("wait", trigger.made_ms, turn_ms, vision_wait_ms=stages["vision_wait"], queue_ms=stages["queue"])
        if "prompt" not in stages:
            return  # was not asked
        asked_ms = turn_ms + stages["prompt"]
        part("prompt", turn_ms, asked_ms, tokens=len(result.prompt.ids) if result.prompt else 0)
        self._engine(trace, own, result, asked_ms, failed)
        if result.signal is not None:
            decided_ms = result.signal.ts_decided_ms
            part("publish", decided_ms, decided_ms + stages.get("publish", 0.0), SpanKind.PRODUCER, signal_id=str(result.signal.signal_id))

    def _engine(self, trace: TriggerTrace, own: SpanContext, result: TriggerResult, asked_ms: float, failed: str | None) -> None:
        stages = result.stages_ms
        if self._tracer is None or trace.engine is None:
            return
        moments, at_ms = [], asked_ms
        for stage in ("first_token", "decision"):
            if stage in stages:
                at_ms += stages[stage]
                moments.append((stage, at_ms))
        self._tracer.record(
            "engine",
            trace.engine,
            own,
            asked_ms,
            max(at_ms, asked_ms + result.answering_ms),
            kind=SpanKind.CLIENT,
            attributes=dict(_about_call(result)),
            events=moments,
            error=failed,
        )


def _about(trigger: Trigger, result: TriggerResult) -> Iterator[tuple[str, str | int]]:
    origin = trigger.origin
    yield "messaging.system", "kafka"
    yield "messaging.destination.name", origin.topic
    yield "messaging.destination.partition.id", str(origin.partition)
    yield "messaging.kafka.offset", origin.offset
    yield "aquiline.trigger_id", str(trigger.trigger_id)
    yield "aquiline.kind", trigger.kind
    yield "aquiline.symbol", trigger.lane.symbol
    yield "aquiline.interval", trigger.lane.interval
    yield "aquiline.mode", trigger.lane.mode
    yield "aquiline.outcome", result.outcome.value
    for name, value in (("reason", result.reason), ("detail", result.detail), ("vision", result.vision)):
        if value:
            yield f"aquiline.{name}", _text(value)
    if result.signal is not None:
        yield "aquiline.action", result.signal.action.value
    for which, ref in _rests(result):
        yield f"aquiline.as_of.{which}", ref.offset


def _about_call(result: TriggerResult) -> Iterator[tuple[str, str | int | float]]:
    engine, usage = result.engine, result.usage
    if engine is not None:
        yield "gen_ai.response.model", engine.model
        yield "aquiline.engine", engine.name
        yield "aquiline.source", engine.source
    if result.cached_tokens is not None:
        yield "aquiline.cached_tokens", result.cached_tokens
    if usage is not None:
        yield "gen_ai.usage.input_tokens", usage.prompt_tokens
        yield "gen_ai.usage.output_tokens", usage.output_tokens
        if usage.accept_length is not None:
            yield "aquiline.accept_length", usage.accept_length


def _text(value: str) -> str:
    """Return text that can be sent: an answer may hold half a surrogate pair."""
    return value[:_SHOWN].encode(errors="replace").decode()


def _rests(result: TriggerResult) -> Iterator[tuple[str, OffsetRef]]:
    if result.as_of is not None:
        yield from result.as_of.refs().items()


def _links(trace: TriggerTrace, result: TriggerResult) -> list[SpanContext]:
    """Return the spans that made the records which the decision rests on, other than the one that its trigger hangs under."""
    held = {(ref.topic, ref.offset) for _, ref in _rests(result)}
    found = (extract(seen.headers) for seen in trace.rests_on if (seen.topic, seen.offset) in held)
    return [context for context in found if context is not None and context != trace.parent]
