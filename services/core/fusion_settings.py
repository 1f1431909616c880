"""The worker's settings: what it reads, asks and publishes, its deadlines and the guard's limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from schemas import Interval, interval_ms
from services.strategy.folder import read, shipped
from services.strategy.model import Strategy
from services.strategy.section import NotNegative, Positive, WindowBars
from services.strategy.values import Answers, Deadlines, Guard, Levels, Notes, Permits, Triggers


def _strategy(value: Any) -> Any:
    """Return the strategy in the folder that a settings file or variable names."""
    return read(Path(value)) if isinstance(value, str | Path) else value


StrategyFolder = Annotated[Strategy, BeforeValidator(_strategy), NoDecode]
"""A strategy, given as its folder; in exported settings as its contents."""


class FusionSettings(Triggers, Answers, Levels, Deadlines, Permits, Guard, Notes):
    """The worker."""

    strategy: StrategyFolder = Field(
        default_factory=shipped,
        description="Folder of the strategy, which `aquiline strategy new` makes: what the model is shown and told, when it is asked, and within which limits; in a settings file relative to that file. `docs/strategies.md` lists what it sets.",
    )
    group: str = Field(
        "aquiline-fusion",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="Consumer group; outside `live` it is prefixed with the run mode, as topics are: `shadow.aquiline-fusion`.",
    )
    log_id: str = Field(
        "aquiline",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="Name of the log that offsets belong to; change it when topics are recreated, so that ids stay unique.",
    )
    start_from: Literal["latest", "earliest"] = Field(
        "latest",
        description="Where a group without commits starts to trigger; books are always rebuilt from the records before.",
    )
    symbols: list[str] = Field([], description="Fold only these symbols; all when empty.")
    intervals: Annotated[list[Interval], Field(min_length=1, max_length=6)] = Field(
        ["1m", "15m", "1h"], description="Intervals in the prompt, fastest first; records of others are `filtered`."
    )
    window_bars: WindowBars = Field(256, description="W: closed bars of the fastest interval in a prompt at the start of an epoch.")
    epoch_slots: Positive = Field(64, description="K: slots of the fastest interval from one epoch to the next.")
    slow_window_bars: WindowBars = Field(64, description="Closed bars of each slower interval in a prompt.")
    slow_windows: dict[Interval, WindowBars] = Field(
        {}, description="Closed bars of single slower intervals in a prompt, where they differ from `slow_window_bars`."
    )
    max_symbols: Positive = Field(2_000, description="Symbols beyond this many are dead-lettered (`too_many_symbols`).")
    answer_form: Literal["line", "json"] = Field(
        "line",
        description="How the model is to answer: `line` for numbers on one line, a third of the tokens, or `json`; `json` unless given where `engine.kind` has no grammar for lines (`openai`, a plug-in).",
    )
    day_zero_ms: NotNegative | None = Field(
        None,
        description="Prompts count days from this instant (milliseconds since 1970) in place of dates, for `aquiline backtest --blind`; dates when absent.",
    )
    delivery_reserve_ms: Positive = Field(500, description="The deadline is this long before `valid_until_ms`.")
    producer_timeout_ms: Positive = Field(
        400, description="Delivery timeout of the signals' producer; must be below `delivery_reserve_ms`."
    )
    max_unfinished: Positive = Field(10_000, description="Above this many unfinished records the oldest waiting trigger ends `stale`.")
    pause_at_unfinished: Positive = Field(
        20_000, description="Above this many unfinished records reading pauses until half of them are done."
    )
    grammar: bool = Field(True, description="Constrain answers by a regular expression or JSON schema where the engine can.")
    repair: bool = Field(True, description="Ask once more, inside the deadline, after an answer that does not parse.")
    fallback: Literal["none", "rules"] = Field(
        "none", description="What answers when the engine does not; answers of `rules` are labelled `degraded`."
    )
    prewarm: bool = Field(True, description="Send the next epoch's prefix to the engine in slices before it is needed.")
    prewarm_before_open_ms: NotNegative = Field(
        600_000,
        description="In `live` and `shadow`, each symbol's prefix is sent ahead again this long before its session opens; 0 for never.",
    )
    drain_ms: Positive = Field(10_000, description="Time that unfinished calls have on SIGTERM or when partitions move.")
    commit_interval_ms: Positive = Field(1_000, description="How often offsets are committed.")
    max_skew_ms: Positive = Field(2_000, description="Signals are blocked while the clocks of worker and broker differ by more than this.")
    max_event_lag_ms: Positive | None = Field(
        None,
        description="A closed bar appended later than this after its end blocks; off when absent, as for recorded data.",
    )
    max_dead_letter_ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="The worker stops when more than this share of the last records are dead-lettered."
    )
    dead_letter_window: Positive = Field(1_000, description="Number of last records that this share is computed over.")

    @property
    def trigger_interval_set(self) -> frozenset[str]:
        """Return the intervals whose bars trigger."""
        return frozenset(self.trigger_intervals or self.intervals[:1])

    def slow_window(self, interval: str) -> int:
        """Return how many closed bars of a slower interval a prompt shows."""
        return self.slow_windows.get(interval, self.slow_window_bars)

    def entry_validity(self, interval: str) -> int:
        """Return how long after its record a signal on `interval` may open a position, in milliseconds."""
        return self.entry_validity_ms.get(interval, max(2_000, interval_ms(interval) // 20))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        lengths = [interval_ms(interval) for interval in self.intervals]
        if sorted(set(lengths)) != lengths:
            raise ValueError(f"fusion.intervals {self.intervals} must be distinct and go from the fastest to the slowest")
        if unknown := set(self.trigger_intervals) - set(self.intervals):
            raise ValueError(f"fusion.trigger_intervals names {sorted(unknown)}, which fusion.intervals {self.intervals} does not hold")
        if unknown := set(self.slow_windows) - set(self.intervals[1:]):
            raise ValueError(f"fusion.slow_windows names {sorted(unknown)}, which are no slower ones of fusion.intervals {self.intervals}")
        if self.window_bars <= self.epoch_slots:
            raise ValueError(
                f"fusion.window_bars ({self.window_bars}) must be above fusion.epoch_slots ({self.epoch_slots}): slower bars are frozen an epoch back, and the window must reach there"
            )
        if self.producer_timeout_ms >= self.delivery_reserve_ms:
            raise ValueError(
                f"fusion.producer_timeout_ms ({self.producer_timeout_ms}) must be below fusion.delivery_reserve_ms ({self.delivery_reserve_ms}), or a stale signal could leave from the producer's buffer"
            )
        if self.flash_target_tenths_atr <= self.flash_entry_tenths_atr:
            raise ValueError(
                f"fusion.flash_target_tenths_atr ({self.flash_target_tenths_atr}) must be above fusion.flash_entry_tenths_atr ({self.flash_entry_tenths_atr}), or the worst entry would lie beyond the target"
            )
        if self.min_bars > self.window_bars:
            raise ValueError(f"fusion.min_bars ({self.min_bars}) must not be above fusion.window_bars ({self.window_bars})")
        for interval in self.trigger_interval_set:
            if self.entry_validity(interval) <= self.delivery_reserve_ms:
                raise ValueError(
                    f"fusion.entry_validity_ms of {interval} ({self.entry_validity(interval)}) must be above fusion.delivery_reserve_ms ({self.delivery_reserve_ms})"
                )
        return self

    @model_validator(mode="after")
    def _time_to_think(self) -> Self:
        deep = self.deep_every_bars or self.deep_on_move_atr is not None
        for interval in self.trigger_interval_set if deep else ():
            if (left_ms := self.entry_validity(interval) - self.delivery_reserve_ms) <= self.deep_answer_ms:
                raise ValueError(
                    f"fusion.deep_answer_ms ({self.deep_answer_ms}) leaves no time to think: a decision on {interval} has {left_ms} ms (fusion.entry_validity_ms less fusion.delivery_reserve_ms)"
                )
        return self
