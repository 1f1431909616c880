"""Which trigger is asked now: one that the engine, as it has lately answered, can answer before its deadline. Others wait."""

from __future__ import annotations

from services.core.clock import Clock
from services.core.fusion_settings import FusionSettings
from services.fusion.decide.deadline import Deadline
from services.fusion.decide.lanes import Verdict
from services.fusion.decide.pace import EnginePace
from services.fusion.deliver.acknowledgements import SkewMeter
from services.fusion.inputs.tables import Tables
from services.fusion.observe.result import TriggerResult
from services.fusion.prompt.warm_prefixes import WarmPrefixes
from services.fusion.state.books import Books
from services.fusion.state.triggers import LaneKey, Trigger


class Admission:
    """Decides for the lanes, and learns from each answer how long the engine takes."""

    def __init__(
        self, settings: FusionSettings, clock: Clock, books: Books, prefixes: WarmPrefixes, *, skew: SkewMeter, tables: Tables
    ) -> None:
        """`prefixes` are those that the engine should hold; `skew` is the publisher's; it moves deadlines, as blackouts in `tables` do."""
        self._settings = settings
        self._clock = clock
        self._books = books
        self._prefixes = prefixes
        self._skew = skew
        self._tables = tables
        self._pace = EnginePace(settings.deep_answer_ms)

    def cold(self, lane: LaneKey) -> bool:
        """Return whether the engine has to compute the whole prefix of the lane's prompt."""
        book = self._books.get(lane.symbol)
        return book is not None and not self._prefixes.holds(book, lane.interval)

    def verdict(self, trigger: Trigger, passed_over: bool) -> Verdict:  # noqa: FBT001 - the lanes call it
        """Return whether a trigger whose turn has come is asked now, waits, or ends unasked; one that is asked is under way from here on.

        One that was passed over ends once its deadline has passed. Whatever else stops a trigger, its decision finds.
        """
        lane = trigger.lane
        book = self._books.get(lane.symbol)
        if book is None or book.market_ref is None:
            return "ask"
        deadline = Deadline(self._settings, book, trigger, skew=self._skew, tables=self._tables)
        left_ms = deadline.hand_over_ms() - self._clock.now_ms()
        if left_ms < 0:
            return "end" if passed_over else "ask"
        warm = self._prefixes.holds(book, lane.interval)
        needed_ms = self._pace.needed_ms(lane.mode, warm=warm)
        if needed_ms is not None and needed_ms > left_ms:
            return "wait"
        self._pace.begin(trigger.trigger_id, lane.mode, self._now_ms(), warm=warm)
        return "ask"

    def first_token(self, trigger: Trigger) -> None:
        """Note that the engine has begun to answer."""
        self._pace.first_token(trigger.trigger_id, self._now_ms())

    def answered(self, trigger: Trigger, result: TriggerResult) -> None:
        """Learn from a decision that is complete; its rationale may still be under way."""
        prompt = result.prompt
        assert prompt is not None  # noqa: S101 - it was asked
        self._prefixes.add(trigger.lane.symbol, trigger.lane.interval, prompt.prefix.index, prompt.prefix.version)
        # Of an engine that does not say what it had cached, every prompt counts whole, and its tokens as that much quicker.
        uncached = max(0, prompt.ids.size - (result.cached_tokens or 0))
        self._pace.answered(trigger.trigger_id, self._now_ms(), uncached)

    def timed_out(self, trigger: Trigger) -> None:
        """Learn from a deadline that passed before a decision was complete."""
        self._pace.timed_out(trigger.trigger_id, self._now_ms())

    def ended(self, trigger: Trigger) -> None:
        """Note that a trigger is no longer under way, whatever became of it."""
        self._pace.dropped(trigger.trigger_id)

    def _now_ms(self) -> float:
        return self._clock.elapsed_s() * 1000
