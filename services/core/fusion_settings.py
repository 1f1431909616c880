"""The worker's settings: what it reads, asks and publishes, its deadlines and the guard's limits."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas import Interval, interval_ms
from services.core.settings_section import NotNegative, Positive, Section


class FusionSettings(Section):
    """The worker."""

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
    trigger_intervals: list[Interval] = Field([], description="Intervals whose bars trigger; the fastest alone when empty.")
    window_bars: Positive = Field(256, description="W: closed bars of the fastest interval in a prompt at the start of an epoch.")
    epoch_slots: Positive = Field(64, description="K: slots of the fastest interval from one epoch to the next.")
    slow_window_bars: Positive = Field(64, description="Closed bars of each slower interval in a prompt.")
    min_bars: Positive = Field(20, description="Signals are blocked while there are fewer closed bars than this.")
    max_gap_bars: NotNegative = Field(8, description="More missing bars in a row than this inside the window block a signal.")
    max_sparse_gap_bars: NotNegative = Field(
        30, description="The same for an instrument that is `sparse`: one whose minutes often pass without a trade."
    )
    max_missing_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1,
        description="More missing bars in the window than this share of `window_bars` block a signal, unless the instrument is `sparse`.",
    )
    max_jump: Annotated[float, Field(gt=1)] = Field(
        1.8,
        description="A close that is more than this many times the one before, or the inverse, without a split, blocks as `suspected_split` "
        "until a split or a correction explains it or an operator resumes the symbol by name.",
    )
    max_symbols: Positive = Field(2_000, description="Symbols beyond this many are dead-lettered (`too_many_symbols`).")
    trigger_on_closed_bar: bool = Field(True, description="Ask on every closed bar of a trigger interval.")
    trigger_on_vision: bool = Field(False, description="Ask on vision features that no waiting bar was waiting for.")
    trigger_on_move_atr: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Ask when a forming bar has moved by this many ATR since the last trigger."
    )
    mode: Literal["flash", "fast"] = Field(
        "fast",
        description="How to ask: `flash` for one token with the probabilities of the actions, `fast` for a short answer with prices.",
    )
    answer_form: Literal["line", "json"] = Field(
        "line",
        description="How the model is to answer: `line` for numbers on one line, a third of the tokens, or `json`; `json` unless given where `engine.kind` has no grammar for lines (`openai`, a plug-in).",
    )
    rationale: Literal["none", "short"] = Field(
        "short",
        description="`short`: the model says in a sentence why, after the signal has been handed over, for the audit; in mode `flash` by a call of its own, which is left out while a decision waits or runs.",
    )
    flash_min_margin: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="Mode `flash`: abstain when the likeliest action leads the next one by less probability than this."
    )
    flash_temperature: Annotated[float, Field(gt=0, le=100)] = Field(
        1.0, description="Mode `flash`: divides the log-probabilities of the actions; above 1 flattens them."
    )
    flash_horizon_bars: Annotated[int, Field(ge=1, le=99)] = Field(5, description="Mode `flash`: for how many bars a view holds.")
    flash_entry_tenths_atr: Annotated[int, Field(ge=0, le=98)] = Field(
        2, description="Mode `flash`: the worst entry, in tenths of one ATR beyond the last close."
    )
    flash_stop_tenths_atr: Annotated[int, Field(ge=1, le=99)] = Field(
        15, description="Mode `flash`: the stop, in tenths of one ATR behind the last close."
    )
    flash_target_tenths_atr: Annotated[int, Field(ge=1, le=99)] = Field(
        25, description="Mode `flash`: the target, in tenths of one ATR beyond the last close."
    )
    min_gap_ms: NotNegative = Field(0, description="Minimum event time between two triggers of a lane.")
    deep_every_bars: NotNegative = Field(0, description="Ask in mode `deep` too on every n-th slot; 0 for never.")
    deep_on_move_atr: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Ask in mode `deep` too when a closed bar's range is at least this many ATR."
    )
    vision_wait_ms: NotNegative = Field(
        150,
        description="How long a closed bar waits for the vision features of its window, where features came for one of the last eight bars.",
    )
    day_zero_ms: NotNegative | None = Field(
        None,
        description="Prompts count days from this instant (milliseconds since 1970) in place of dates, for `aquiline backtest --blind`; dates when absent.",
    )
    max_vision_age_bars: NotNegative = Field(5, description="Vision features older than this many bars count as `absent`.")
    max_staleness_ms: Positive = Field(5_000, description="A trigger older than this when its turn comes ends `stale`.")
    entry_validity_ms: dict[Interval, Positive] = Field(
        {},
        description="From a bar's record to the last instant to open a position, by interval; a twentieth of the interval, at least 2 s, where not given.",
    )
    delivery_reserve_ms: Positive = Field(500, description="The deadline is this long before `valid_until_ms`.")
    producer_timeout_ms: Positive = Field(
        400, description="Delivery timeout of the signals' producer; must be below `delivery_reserve_ms`."
    )
    permits: Positive = Field(3, description="Concurrent engine calls in mode `flash` or `fast`.")
    deep_permits: Positive = Field(1, description="Concurrent engine calls in mode `deep`.")
    max_unfinished: Positive = Field(10_000, description="Above this many unfinished records the oldest waiting trigger ends `stale`.")
    pause_at_unfinished: Positive = Field(
        20_000, description="Above this many unfinished records reading pauses until half of them are done."
    )
    max_new_tokens: Positive = Field(160, description="Longest answer in mode `fast`, in tokens; a rationale may add 48.")
    deep_thought_tokens: Positive = Field(
        2_048, description="Longest thought in mode `deep`, in tokens; a longer one is cut, and the answer asked for."
    )
    deep_answer_ms: Positive = Field(1_000, description="Mode `deep`: the thought is cut this long before the deadline, for the answer.")
    temperature: Annotated[float, Field(ge=0, le=2)] = Field(
        0.0, description="Sampling temperature of answers; 0 takes the likeliest token each time. The seed is made of the trigger's id."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Answers are sampled among the likeliest tokens of this probability."
    )
    deep_temperature: Annotated[float, Field(ge=0, le=2)] = Field(
        0.6, description="Sampling temperature of thoughts; MiniCPM4.1's README gives 0.6. At 0 thoughts tend to repeat themselves."
    )
    deep_top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        0.95, description="The same as `top_p` for thoughts; MiniCPM4.1's README gives 0.95."
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
    cool_down_ms: NotNegative = Field(0, description="Minimum event time between two entries (`buy`, `sell`) of a symbol.")
    flip_flop_limit: NotNegative = Field(
        3, description="Signals are blocked after more changes of side than this within `flip_flop_window_ms`; 0 for no limit."
    )
    flip_flop_window_ms: Positive = Field(3_600_000, description="Event time over which changes of side are counted.")
    rate_limit_per_min: Positive = Field(
        600, description="Signals that one worker may publish in a minute of its clock; further ones are blocked."
    )

    @property
    def trigger_interval_set(self) -> frozenset[str]:
        """Return the intervals whose bars trigger."""
        return frozenset(self.trigger_intervals or self.intervals[:1])

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
