"""The values that a strategy sets, in the tables of `strategy.toml`; the worker's settings hold them under the same names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas import Interval
from services.strategy.section import NotNegative, Positive, Section


class Triggers(Section):
    """When the model is asked, in event time."""

    trigger_intervals: list[Interval] = Field([], description="Intervals whose bars trigger; the fastest alone when empty.")
    trigger_on_closed_bar: bool = Field(True, description="Ask on every closed bar of a trigger interval.")
    trigger_on_vision: bool = Field(False, description="Ask on vision features that no waiting bar was waiting for.")
    trigger_on_move_atr: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Ask when a forming bar has moved by this many ATR since the last trigger."
    )
    min_gap_ms: NotNegative = Field(0, description="Minimum event time between two triggers of a lane.")
    deep_every_bars: NotNegative = Field(0, description="Ask in mode `deep` too on every n-th slot; 0 for never.")
    deep_on_move_atr: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Ask in mode `deep` too when a closed bar's range is at least this many ATR."
    )


class Answers(Section):
    """How the model is asked."""

    mode: Literal["flash", "fast"] = Field(
        "fast",
        description="How to ask: `flash` for one token with the probabilities of the actions, `fast` for a short answer with prices.",
    )
    rationale: Literal["none", "short"] = Field(
        "short",
        description="`short`: the model says in a sentence why, after the signal has been handed over, for the audit; in mode `flash` by a call of its own, which is left out while a decision waits or runs.",
    )
    max_new_tokens: Positive = Field(160, description="Longest answer in mode `fast`, in tokens; a rationale may add 48.")
    deep_thought_tokens: Positive = Field(
        2_048, description="Longest thought in mode `deep`, in tokens; a longer one is cut, and the answer asked for."
    )
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


class Levels(Section):
    """What an action of mode `flash` means: its horizon, and its prices in ATR from the last close."""

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


class Deadlines(Section):
    """How long a decision may take, and how long it may be acted on."""

    entry_validity_ms: dict[Interval, Positive] = Field(
        {},
        description="From a bar's record to the last instant to open a position, by interval; a twentieth of the interval, at least 2 s, where not given.",
    )
    max_staleness_ms: Positive = Field(5_000, description="A trigger older than this when its turn comes ends `stale`.")
    vision_wait_ms: NotNegative = Field(
        150,
        description="How long a closed bar waits for the vision features of its window, where features came for one of the last eight bars.",
    )
    deep_answer_ms: Positive = Field(1_000, description="Mode `deep`: the thought is cut this long before the deadline, for the answer.")


class Permits(Section):
    """Calls to the engine at once."""

    permits: Positive = Field(3, description="Concurrent engine calls in mode `flash` or `fast`.")
    deep_permits: Positive = Field(1, description="Concurrent engine calls in mode `deep`.")


class Guard(Section):
    """Limits that block a decision."""

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
    max_vision_age_bars: NotNegative = Field(5, description="Vision features older than this many bars count as `absent`.")
    cool_down_ms: NotNegative = Field(0, description="Minimum event time between two entries (`buy`, `sell`) of a symbol.")
    flip_flop_limit: NotNegative = Field(
        3, description="Signals are blocked after more changes of side than this within `flip_flop_window_ms`; 0 for no limit."
    )
    flip_flop_window_ms: Positive = Field(3_600_000, description="Event time over which changes of side are counted.")
    rate_limit_per_min: Positive = Field(
        600, description="Signals that one worker may publish in a minute of its clock; further ones are blocked."
    )


class Notes(Section):
    """How much of the notes a prompt quotes."""

    notes_max_tokens: NotNegative = Field(
        256, description="Tokens of quoted notes in a prompt, the most important first; 0 quotes none. Blackouts hold all the same."
    )
    notes_max_age_ms: Annotated[int, Field(gt=0, le=30 * 86_400_000)] = Field(
        86_400_000, description="A note is shown until the last close is this long after it was written; 30 days at most."
    )
