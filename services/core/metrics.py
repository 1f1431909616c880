"""Every metric that Aquiline exports, with its labels and its unit: the one file to read, and the one to add to.

A label's values come from an enumeration, the settings or at most `fusion.max_symbols` symbols, never from a message as it came.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    Summary,
    disable_created_metrics,
)

from schemas import DeadLetterReason

# A `_created` series beside every counter would nearly double what is scraped, and nothing reads it.
disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY: Final = CollectorRegistry()
"""What `/metrics` shows: ours, and the process' own (`process_*`, `python_info`)."""
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

# --- Every service ----------------------------------------------------------------------------------------------------------

# Which version runs, as a label of a series that is always 1.
BUILD_INFO: Final = Info("aquiline_build", "The version that runs.", registry=REGISTRY)
BUILD_INFO.info({"version": version("aquiline")})

# Records read, by topic (its name in run mode `live`) and by what became of each: `folded duplicate filtered dead_lettered`.
# The sum over outcomes is the number of records read.
RECORDS: Final = Counter("aquiline_records_total", "Records read, by what became of them.", ["topic", "outcome"], registry=REGISTRY)

# Dead-lettered records, by reason (schemas.DeadLetterReason). A new reason or a growing rate points to a faulty producer.
# Each starts at 0: Prometheus sees no increase of a counter that appears with its first event, and one dead letter matters.
DEAD_LETTERS: Final = Counter("aquiline_dead_letters_total", "Dead-lettered records, by reason.", ["reason"], registry=REGISTRY)
for _reason in DeadLetterReason:
    DEAD_LETTERS.labels(_reason.value)

# Records between the log's end and the last of which all is done, by input topic (its name in run mode `live`) and partition; and
# the offset below which all is done. A lag above 0 with an offset that stands still means that work does not progress.
LAG_RECORDS: Final = Gauge("aquiline_lag_records", "Records behind the log's end.", ["topic", "partition"], registry=REGISTRY)
WATERMARK_OFFSET: Final = Gauge(
    "aquiline_watermark_offset", "The offset below which all is done.", ["topic", "partition"], registry=REGISTRY
)

# 1 while a session of the calendar is open, by the name of a calendar that instruments use. Recorded data (run modes `demo` and
# `replay`) has its own time: there it is always 1.
SESSION_OPEN: Final = Gauge("aquiline_session_open", "1 while a session is open, by calendar.", ["calendar"], registry=REGISTRY)

# Candles that a live feed published, by what each was: `closed forming revised`; and how often it was interrupted, by reason:
# `network rate_limit maintenance answer bus file`.
FEED_CANDLES: Final = Counter("aquiline_feed_candles_total", "Candles that a live feed published.", ["state"], registry=REGISTRY)
FEED_FAILURES: Final = Counter("aquiline_feed_failures_total", "Interruptions of a live feed, by reason.", ["reason"], registry=REGISTRY)

# Top-level fields that this version of the contracts does not know: a newer producer is at work.
UNKNOWN_FIELDS: Final = Counter("aquiline_unknown_fields_total", "Fields of messages that are not known here.", registry=REGISTRY)

# Calls of the user's function `features(bars)` that failed; the bar was published without them.
OWN_FEATURES_FAILED: Final = Counter("aquiline_own_features_failed_total", "Failed calls of the user's features.", registry=REGISTRY)

# --- Fusion -----------------------------------------------------------------------------------------------------------------

# Hooks of the strategy that failed, by kind (`facts trigger guard input`): raised, took too long, or returned what they must not.
HOOKS_FAILED: Final = Counter("aquiline_hooks_failed_total", "Hooks of the strategy that failed, by kind.", ["kind"], registry=REGISTRY)

# Records of the topics that workers read as tables (`notes positions`, and inputs of your own), by topic and by what became of each:
# `folded`, or the reason for which it was refused. Refused ones are logged with their offset, and are not in the dead letters: every
# worker reads all of them.
TABLE_RECORDS: Final = Counter(
    "aquiline_table_records_total", "Records of table inputs, by what became of each.", ["topic", "result"], registry=REGISTRY
)

# Triggers made, by kind (`closed_bar vision move deep`, or a hook's reason). Minus the sum of outcomes, this is the number still open.
TRIGGERS: Final = Counter("aquiline_triggers_total", "Triggers made, by kind.", ["kind"], registry=REGISTRY)

# Triggers ended, by outcome and reason (`none` for published ones). Reasons are the worker's own names, never a message's.
# Those that are late start at 0, for the same reason as dead letters do.
OUTCOMES: Final = Counter("aquiline_outcomes_total", "Triggers ended, by outcome and reason.", ["outcome", "reason"], registry=REGISTRY)
for _late in (("stale", "deadline"), ("stale", "too_old"), ("stale", "no_time"), ("stale", "backlog"), ("failed", "engine_timeout")):
    OUTCOMES.labels(*_late)

# Published signals by action, source and vision freshness.
SIGNALS: Final = Counter("aquiline_signals_total", "Signals published.", ["action", "source", "vision"], registry=REGISTRY)

# Cancels by reason (schemas.CancelReason).
CANCELS: Final = Counter("aquiline_cancels_total", "Cancels published, by reason.", ["reason"], registry=REGISTRY)

# Seconds by stage of published decisions: `fold vision_wait queue prompt first_token decision publish total`; total runs from the
# record's timestamp to the broker's acknowledgement.
STAGE_SECONDS: Final = Histogram(
    "aquiline_stage_seconds",
    "Seconds by stage of published decisions.",
    ["stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.75, 1, 2.5, 5, 10),
    registry=REGISTRY,
)

# Seconds from the end of the bar that a decision is about to its record's append time: how late the feed is.
EVENT_LAG_SECONDS: Final = Histogram(
    "aquiline_event_lag_seconds",
    "Seconds from a bar's end to its record.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
    registry=REGISTRY,
)

# Prompt tokens sent, and those that the engine already held, by purpose (`decision repair rationale warm`). Their ratio is the prefix hit
# ratio.
PROMPT_TOKENS: Final = Counter("aquiline_prompt_tokens_total", "Prompt tokens sent.", ["purpose"], registry=REGISTRY)
CACHED_TOKENS: Final = Counter("aquiline_cached_tokens_total", "Prompt tokens found cached.", ["purpose"], registry=REGISTRY)

# Output tokens, and seconds from the first token to the last: their ratio is the decode rate.
OUTPUT_TOKENS: Final = Counter("aquiline_output_tokens_total", "Tokens that the engine wrote.", registry=REGISTRY)
DECODE_SECONDS: Final = Counter("aquiline_decode_seconds_total", "Seconds in which it wrote them.", registry=REGISTRY)

# Tokens a verification step of speculative decoding yielded, bonus token included, a call. Near 1.0, the draft is of no use.
ACCEPT_LENGTH: Final = Histogram(
    "aquiline_accept_length_tokens",
    "Mean tokens a verification step, a call.",
    buckets=(1.05, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3, 3.5, 4),
    registry=REGISTRY,
)

# Calls to the engine that failed, by reason (services.inference.engine.EngineError).
ENGINE_FAILURES: Final = Counter("aquiline_engine_failures_total", "Engine calls that failed, by reason.", ["reason"], registry=REGISTRY)

# Lanes by state: `waiting queued running follow_up`. Queued ones that grow mean that the engine is too slow for the triggers.
LANES: Final = Gauge("aquiline_lanes", "Lanes by state.", ["state"], registry=REGISTRY)

# Records taken in whose work is not done: what a crash now would read again.
UNFINISHED_RECORDS: Final = Gauge("aquiline_unfinished_records", "Records whose work is not done.", registry=REGISTRY)

# How long the trigger that is most overdue has been past its deadline without an outcome that the broker acknowledged; 0 while
# none is. Every trigger ends: one that does not for long is a decision lost without a word.
TRIGGER_OVERDUE_SECONDS: Final = Gauge(
    "aquiline_trigger_overdue_seconds", "Seconds past its deadline of the most overdue trigger.", registry=REGISTRY
)

# Symbols with a book.
SYMBOLS: Final = Gauge("aquiline_symbols", "Symbols with a book.", registry=REGISTRY)

# Tokens of all prefixes in use, and what the engine can hold. When the first passes the second, prefix hits collapse.
LIVE_PREFIX_TOKENS: Final = Gauge("aquiline_live_prefix_tokens", "Tokens of all prefixes in use.", registry=REGISTRY)
ENGINE_KV_TOKENS: Final = Gauge("aquiline_engine_kv_tokens", "Tokens that the engine's KV cache holds.", registry=REGISTRY)

# Difference between the worker's clock and the broker's, in seconds, as acknowledgements show it; 0 while it cannot be told.
CLOCK_SKEW_SECONDS: Final = Gauge("aquiline_clock_skew_seconds", "Worker's clock less the broker's.", registry=REGISTRY)

# 1 while all symbols are halted (by an operator, or since `control` cannot be read), since when they are (by the operator's record,
# so that a restart does not shorten it), and the symbols halted by name.
HALTED: Final = Gauge("aquiline_halted", "1 while everything is halted.", registry=REGISTRY)
HALTED_SECONDS: Final = Gauge("aquiline_halted_seconds", "For how long everything has been halted; 0 while it is not.", registry=REGISTRY)
HALTED_SYMBOLS: Final = Gauge("aquiline_halted_symbols", "Symbols that are halted.", registry=REGISTRY)

# Redis operations that failed or outlasted their budget; each was a miss, nothing more.
REDIS_FAILURES: Final = Counter("aquiline_redis_failures_total", "Redis operations that failed.", registry=REGISTRY)

# Prompt blocks asked of Redis, by what came back: `hit miss corrupt`.
REDIS_BLOCKS: Final = Counter("aquiline_redis_blocks_total", "Prompt blocks asked of Redis.", ["outcome"], registry=REGISTRY)

# --- The producer of market features ----------------------------------------------------------------------------------------

# Bars published with their features, by state (`forming closed`); those built from lower intervals are among them.
MARKET_FEATURES: Final = Counter(
    "aquiline_market_features_total", "Bars published with their features, by state.", ["state"], registry=REGISTRY
)

# --- Engines ----------------------------------------------------------------------------------------------------------------

# Calls by engine (its kind, host and port) and by how they ended: `answered`, `abandoned` (the caller gave up) or the reason of an
# EngineError. `engine_open` are those refused here because the address keeps failing.
ENGINE_CALLS: Final = Counter("aquiline_engine_calls_total", "Engine calls, by how they ended.", ["engine", "end"], registry=REGISTRY)

# 1 while the breaker of an engine is open or half open.
ENGINE_LEFT_ALONE: Final = Gauge("aquiline_engine_left_alone", "1 while the breaker of an engine is open.", ["engine"], registry=REGISTRY)

# Seconds since an engine last produced a token, for a decision or a probe. A live engine
# stays below `engine.probe_idle_ms` and `engine.probe_timeout_ms` together.
ENGINE_SILENT_SECONDS: Final = Gauge(
    "aquiline_engine_silent_seconds", "Seconds since an engine last produced a token.", ["engine"], registry=REGISTRY
)

# Probes: a few tokens asked of an engine that nobody else had asked for `engine.probe_idle_ms`, by how they ended (as calls do;
# `abandoned` is one that gave way to a decision), and the seconds that the last one took that was not abandoned.
ENGINE_PROBES: Final = Counter("aquiline_engine_probes_total", "Probes of idle engines.", ["engine", "end"], registry=REGISTRY)
ENGINE_PROBE_SECONDS: Final = Gauge("aquiline_engine_probe_seconds", "Seconds that the last probe took.", ["engine"], registry=REGISTRY)

# Aborts sent because a call ran out of time or its caller gave up, by whether the engine acknowledged: `delivered lost`.
ENGINE_ABORTS: Final = Counter("aquiline_engine_aborts_total", "Aborts sent to engines.", ["engine", "end"], registry=REGISTRY)

# --- The producer of vision features ----------------------------------------------------------------------------------------

# Closed bars whose window was due, by what came of it: `published`, or why it was not drawn (`too_few_bars gaps suspected_split`).
VISION_WINDOWS: Final = Counter(
    "aquiline_vision_windows_total", "Windows that were due, by what came of each.", ["outcome"], registry=REGISTRY
)

# Images in a forward pass. Near `vision.batch`, the model is the bottleneck: bars wait for one another.
VISION_BATCH_IMAGES: Final = Histogram(
    "aquiline_vision_batch_images", "Images in a forward pass.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256), registry=REGISTRY
)

# Seconds by stage of a batch: `render forward patterns`; where to look when features come too late for `fusion.vision_wait_ms`.
VISION_SECONDS: Final = Histogram(
    "aquiline_vision_seconds",
    "Seconds by stage of a batch.",
    ["stage"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
    registry=REGISTRY,
)

# --- The scorer -------------------------------------------------------------------------------------------------------------

# Signals to buy or sell that have no outcome yet.
OPEN_SIGNALS: Final = Gauge("aquiline_open_signals", "Signals without an outcome yet.", registry=REGISTRY)

# Outcomes by what the signal was and by why it ended (schemas.ExitReason, or `invalid`). One that is published again after a crash
# counts again.
SIGNAL_OUTCOMES: Final = Counter(
    "aquiline_signal_outcomes_total", "Signals judged, by how they ended.", ["action", "source", "vision", "reason"], registry=REGISTRY
)

# Net returns of the positions that were opened, as fractions: what lies above 0 is the hit rate. Its buckets reach below 0, and so it
# has no sum: gains and losses are counted on their own, and their difference over the count is the expectancy.
SIGNAL_RETURN: Final = Histogram(
    "aquiline_signal_return_ratio",
    "Net returns of judged signals.",
    ["action", "source", "vision"],
    buckets=(-0.1, -0.05, -0.02, -0.01, -0.005, -0.002, 0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1),
    registry=REGISTRY,
)
SIGNAL_GAIN: Final = Counter(
    "aquiline_signal_gain_ratio_total", "Net returns above 0, summed.", ["action", "source", "vision"], registry=REGISTRY
)
SIGNAL_LOSS: Final = Counter(
    "aquiline_signal_loss_ratio_total", "Net returns below 0, summed without their sign.", ["action", "source", "vision"], registry=REGISTRY
)

# Scores of the probabilities that signals carry, over positions that completed: the sum over the count is the mean. 0 is best; a Brier
# score of 0.25 is that of saying 0.5 always, and so is a log loss of 0.69.
SIGNAL_BRIER: Final = Summary(
    "aquiline_signal_brier", "Brier scores of the probabilities of judged signals.", ["action", "source"], registry=REGISTRY
)
SIGNAL_LOG_LOSS: Final = Summary(
    "aquiline_signal_log_loss", "Log losses of the probabilities of judged signals.", ["action", "source"], registry=REGISTRY
)
