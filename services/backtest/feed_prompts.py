"""The prompts that a worker would send on a feed, built without an engine: the worker's own fold, triggers and prompt builder.

A prompt is a pure function of what was folded, so these have the hashes that the audit of a backtest on the same feed has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from schemas import CancelReason, Instrument, Restatement
from services.backtest.backtest_plan import BacktestPlan
from services.core.bus import Record
from services.core.clock import VirtualClock
from services.core.tokenizer import Tokenizer
from services.fusion.inputs.tables import Tables
from services.fusion.prompt.builder import Plan, Prompt, PromptBuilder, fingerprint
from services.fusion.prompt.layout import visible
from services.fusion.prompt.store import PrefixStore
from services.fusion.state.books import Books
from services.fusion.state.intake import Intake
from services.fusion.state.triggers import LaneKey, Trigger, TriggerPolicy


@dataclass(frozen=True, slots=True)
class FeedPrompt:
    """The prompt of one trigger."""

    at_ms: int
    """When the trigger's records became known."""
    trigger: Trigger
    plan: Plan
    prompt: Prompt
    text: str
    """Special tokens by their names."""


async def prompts_of(run: BacktestPlan, tokenizer: Tokenizer) -> AsyncIterator[FeedPrompt]:
    """Yield the prompt of every trigger that is no history, in order of time; the newest trigger of a lane replaces older ones.

    Raises HookError when a hook of the facts fails.
    """
    settings, feed = run.settings, run.feed
    clock = VirtualClock()
    books = Books(settings.fusion, _Instruments(feed.instruments, feed.restatements))
    intake = Intake(settings, clock, books, TriggerPolicy(settings.fusion))
    template = settings.engine.chat_template
    store = PrefixStore(None, settings.redis, clock, fingerprint(tokenizer, template, settings.fusion.strategy))
    builder = PromptBuilder(settings.fusion, tokenizer, template, store, settings.redis.local_bytes)
    builder.tables = tables = Tables(settings)
    offsets: Counter[str] = Counter()
    for step in feed.steps():
        clock.advance_to(step.at_ms)
        made = _Triggers()
        for topic, key, value in step.fed:
            record = Record(topic, 0, offsets[topic], step.at_ms, key, value)
            if topic in intake.topics:
                intake.take(record, made)
            else:
                tables.take(record)
            offsets[topic] += 1
        for trigger in () if step.history else made.by_lane.values():
            lane = trigger.lane
            book = books.get(lane.symbol)
            assert book is not None  # noqa: S101 - it made the trigger
            plan = builder.plan(book, lane.interval, lane.mode)
            pieces = [*(block.piece for block in plan.prefix.blocks), *plan.lines, plan.tail, *builder.template.tail(plan.mode)]
            yield FeedPrompt(step.at_ms, trigger, plan, await builder.build(plan), visible(pieces))


class _Triggers:
    """A sink that keeps the newest trigger of each lane."""

    takes_triggers = True

    def __init__(self) -> None:
        self.by_lane: dict[LaneKey, Trigger] = {}

    def trigger(self, trigger: Trigger, wait_until_ms: int, record: Record) -> None:
        del wait_until_ms, record
        self.by_lane[trigger.lane] = trigger

    def vision_arrived(self, symbol: str, interval: str, window_end_ms: int) -> bool:
        return any(
            (lane.symbol, lane.interval, trigger.window_end_ms) == (symbol, interval, window_end_ms)
            for lane, trigger in self.by_lane.items()
        )

    def bars_changed(self, symbol: str, reason: CancelReason) -> None:
        del symbol, reason


class _Instruments:
    """The lookup that books need; everything is known from the start, as in a backtest."""

    def __init__(self, instruments: Sequence[Instrument], restatements: Sequence[Restatement]) -> None:
        self._instruments = {one.symbol: one for one in instruments}
        self._restatements = sorted(restatements, key=lambda event: event.effective_ms)

    def get(self, symbol: str) -> Instrument | None:
        return self._instruments.get(symbol)

    def restatements(self, symbol: str) -> list[Restatement]:
        return [event for event in self._restatements if event.symbol == symbol]

    def calendars(self) -> set[str]:
        return {one.calendar for one in self._instruments.values()}
