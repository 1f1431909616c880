"""What the console's API answers with: the OpenAPI description is made from these models.

Times are milliseconds since 1970; text from topics is data, which the page shows as text.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas import Action, AuditRecord, Cancel, HaltState, Mode, Outcome, RunMode, Signal, SignalOutcome, Source, Symbol, Vision


class Answer(BaseModel):
    """An answer of the API, or a part of one."""

    model_config = ConfigDict(frozen=True)


class DecisionRow(Answer):
    """One trigger in a list: how it ended and, when a signal was published, what it says."""

    trigger_id: str
    signal_id: str | None
    symbol: str
    interval: str
    mode: Mode
    run_mode: RunMode
    outcome: Outcome
    reason: str | None
    action: Action | None
    conviction: float | None = None
    entry: str | None = None
    stop: str | None = None
    target: str | None = None
    valid_until_ms: int | None = None
    cancelled: str | None = Field(default=None, description="Why the signal was cancelled; absent when it was not.")
    source: Source | None
    vision: Vision | None
    ts_done_ms: int
    ts_event_ms: int = Field(description="The market time of the record that triggered.")
    total_ms: float | None = Field(description="From the record's timestamp to the acknowledged signal; absent without a signal.")
    prompt_tokens: int | None
    cached_tokens: int | None


class Stage(Answer):
    """One stage of a decision."""

    name: str
    ms: float


class DecisionDetail(Answer):
    """Everything that the topics say of one trigger."""

    row: DecisionRow
    audit: AuditRecord
    intact: bool = Field(description="Whether the audit record's checksum matches its content.")
    where: str = Field(description="Topic, partition and offset of the audit record.")
    explanation: str = Field(description="How the trigger ended, in a sentence.")
    stages: list[Stage]
    signal: Signal | None
    cancel: Cancel | None
    result: SignalOutcome | None = Field(description="What the market did after the signal, once the scorer has judged it.")
    command: str = Field(description="The command that shows this decision in a terminal.")


class PromptSection(Answer):
    """A part of the prompt."""

    kind: Literal["rules", "instrument", "bars", "page", "since", "tail"]
    title: str
    tokens: int
    cached: str = Field(description="The text that the engine already held.")
    read: str = Field(description="The text that the engine had to read.")


class PromptView(Answer):
    """A prompt, rebuilt from the log, and whether it is the one that the model got."""

    matches: bool
    problem: str | None = Field(description="How the rebuilt prompt differs from the audit record; absent when it matches.")
    audit_hash: str | None
    rebuilt_hash: str
    epoch: str
    prompt_tokens: int
    cached_tokens: int | None
    prefix_tokens: int
    sections: list[PromptSection]


class Bar(Answer):
    """A bar of the chart."""

    ts_open_ms: int
    ts_close_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    closed: bool
    features: dict[str, float]


class VisionPattern(Answer):
    """A chart pattern that the vision model found."""

    label: str
    score: float
    first_bar: int
    last_bar: int


class VisionView(Answer):
    """The newest vision features of a symbol, and whether their image could be drawn again."""

    window_end_ms: int
    window_bars: int
    detector: str
    p_up: float
    beats_chance: bool
    patterns: list[VisionPattern]
    image: str | None = Field(description="Address of the image, drawn again from the bars; absent when they are not in memory.")
    image_matches: bool = Field(description="Whether the image has the hash in the features.")


class SymbolSignal(Answer):
    """A signal on the chart."""

    row: DecisionRow
    as_of_ms: int
    ref_price: str
    horizon_bars: int | None
    validity_ms: int = Field(description="From the record's timestamp to the last instant to open a position.")
    probabilities: dict[str, float] | None
    result: SignalOutcome | None


class SymbolView(Answer):
    """One symbol and interval: bars, signals, vision."""

    symbol: str
    interval: str
    intervals: list[str]
    decimals: int
    currency: str | None
    halted: str | None = Field(description="Why the symbol is halted; absent when it is not.")
    bars: list[Bar]
    signals: list[SymbolSignal]
    decisions: list[DecisionRow]
    vision: VisionView | None


class TimelinePoint(Answer):
    """Ten seconds of decisions, by the time at which their audit records were appended."""

    at_ms: int
    outcomes: dict[Outcome, int]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    hit_ratio: float | None = Field(description="Cached tokens over prompt tokens.")
    accept_length: float | None


class Halt(Answer):
    """The halt state, as the workers see it."""

    everything: str | None = Field(description="Why everything is halted; absent when it is not.")
    symbols: dict[str, str] = Field(description="Why each symbol that is halted by name is.")
    may_change: bool = Field(description="Whether this client may halt and resume.")
    token_set: bool = Field(description="Whether the console has a token at all.")


class WorkerState(Answer):
    """Sums of the workers' metrics."""

    reachable: int
    configured: int
    lanes: dict[str, float]
    records: dict[str, float]
    triggers: float
    ended: float
    unfinished_records: float
    kv_tokens: float
    prefix_tokens: float
    engine_silent_s: float | None
    accept_length: float | None


class Feed(Answer):
    """How far the console has read."""

    connected: bool
    behind_records: int
    problem: str | None
    missing_topics: list[str]
    unreadable: int
    held_bytes: int
    held_decisions: int


class Totals(Answer):
    """Sums over the audit, distinct by trigger_id, since the console's first record."""

    triggers: int
    outcomes: dict[Outcome, int]
    reasons: dict[str, int] = Field(description="Triggers by `outcome/reason`.")
    actions: dict[str, int]


class Now(Answer):
    """What changes every second."""

    now_ms: int
    feed: Feed
    halt: Halt
    workers: WorkerState
    totals: Totals
    timeline: list[TimelinePoint]


class SymbolRow(Answer):
    """A symbol with bars or decisions in memory."""

    symbol: str
    intervals: list[str]
    last_close: float | None


class Unreadable(Answer):
    """A record that does not follow its topic's contract."""

    where: str
    problem: str
    excerpt: str


class State(Answer):
    """What the page needs to begin: the present, the newest decisions, and the event to go on from."""

    run_mode: RunMode
    compared_mode: RunMode | None
    version: str
    last_event_id: str
    now: Now
    decisions: list[DecisionRow]
    unreadable: list[Unreadable]


class Series(Answer):
    """A curve."""

    at: list[int]
    values: list[float]


class ScoreRow(Answer):
    """A group of judged signals; the estimates are [value, low, high] with a 95 % interval."""

    name: str
    signals: int
    completed: int
    hit_rate: tuple[float, float | None, float | None] | None
    mean_return: tuple[float, float | None, float | None] | None


class Chance(Answer):
    """How the mean return compares with that of random traders under the same rules."""

    name: str
    what: str
    mean: float
    better_than: float
    means: list[float]


class ScoreSide(Answer):
    """The report on the outcomes of one run mode."""

    run_mode: RunMode
    banner: str | None
    verdict: str
    cautions: list[str]
    signals: int
    opened: int
    completed: int
    hit_rate: tuple[float, float | None, float | None] | None
    expectancy: tuple[float, float | None, float | None] | None
    equity: Series
    drawdown: list[float]
    hold: Series | None
    strategy_mean: float | None
    chance: list[Chance]
    chance_missing: str
    calibration: list[ScoreRow]
    calibration_sentence: str
    breakdowns: dict[str, list[ScoreRow]]


class Score(Answer):
    """The outcomes of this run mode, and those of the run mode beside it (shadow beside live)."""

    sides: list[ScoreSide]


class Login(BaseModel):
    """The console's token."""

    token: Annotated[str, Field(max_length=1_000)]


class Command(BaseModel):
    """A halt or a resume."""

    state: HaltState
    symbol: Symbol | None = Field(default=None, description="One symbol; every symbol when absent.")
    reason: Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S")]
    actor: Annotated[str, Field(max_length=80)] = ""
    confirmed: Literal[True] = Field(description="True once the operator has confirmed.")


class Published(Answer):
    """Where a command was appended."""

    topic: str
    offset: int


class Problem(Answer):
    """Why a request failed."""

    detail: Any
