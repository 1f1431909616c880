"""Findings on topics: their configuration on the broker against what the settings need. Pure: this module asks nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from schemas import RunMode, Topic, interval_ms, topic_name
from schemas.note import MAX_BLACKOUT_AHEAD_MS
from services.core.bus import TopicInfo
from services.core.calendar import CalendarError, SessionCalendar
from services.core.fusion_settings import FusionSettings
from services.core.settings import Settings
from services.core.table_inputs import table_specs, topic_specs
from services.core.topic_admin import CO_PARTITIONED, INPUTS, SCORED_TOGETHER
from services.doctor.finding import Finding, fail, ok, skipped, warn
from services.fusion.state.book import kept_bars

_OUTPUTS: Final = (Topic.STRATEGY_SIGNALS, Topic.SIGNAL_AUDIT)
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_LEAST_AUDIT_BYTES: Final = 393_216
"""An audit record holds an answer of up to 65,536 characters of up to four bytes, and some thousand bytes more."""
_HEADER_BYTES: Final = 65_536
_MOST_SHOWN: Final = 5
_LIVE_REPLICAS: Final = 3
_LIVE_IN_SYNC: Final = 2


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the broker reports by topic name; replica counts are missing where it did not report them.

    `look_back_ms` is what `look_back` returns.
    """

    infos: Mapping[str, TopicInfo]
    look_back_ms: int
    replicas: Mapping[str, int] = field(default_factory=dict)
    in_sync: Mapping[str, int] = field(default_factory=dict)


def topic_findings(settings: Settings, facts: TopicFacts) -> list[Finding]:
    """Return the findings on each topic of the run mode, and on the partition counts."""
    found = [finding for topic in topic_specs() for finding in _topic(settings, topic, facts)]
    names = [topic_name(topic, settings.run_mode) for topic in CO_PARTITIONED]
    counts = {facts.infos[name].partitions for name in names if name in facts.infos}
    if counted := _differing(settings, facts, CO_PARTITIONED):
        found.append(
            fail(
                "partitions",
                f"topics that one worker reads and writes together have different partition counts ({counted}); workers refuse to start",
                "create new topics with one count and copy the records: a count cannot be lowered, and raising it moves keys",
            )
        )
    elif scored := _differing(settings, facts, SCORED_TOGETHER):
        found.append(
            fail(
                "partitions",
                f"topics that one scorer reads and writes together have different partition counts ({scored}); it refuses to start",
                "recreate the scorer's own topics (scoring-*-changelog, signal-outcomes) with the count of the others",
            )
        )
    elif counts:
        found.append(ok("partitions", f"inputs, signals and audit have {next(iter(counts))} each"))
    return found


def partitioner_finding(placed: Mapping[str, Collection[int]], records: int) -> Finding:
    """Return whether each symbol has one partition; `placed` holds those on which its newest `records` records of each partition are."""
    check = "partitioners"
    if not placed:
        return skipped(check, "the input topics hold no records")
    several = {symbol: sorted(partitions) for symbol, partitions in placed.items() if len(partitions) > 1}
    if not several:
        return ok(check, f"{len(placed)} symbols have one partition each, in the newest {records} records of every partition")
    shown = "; ".join(f"{symbol} on {partitions}" for symbol, partitions in sorted(several.items())[:_MOST_SHOWN])
    return fail(
        check,
        f"{len(several)} of {len(placed)} symbols are on more than one partition of market and vision features ({shown}); a worker "
        "dead-letters all but one (wrong_partition)",
        "have every producer of both topics use one partitioner: librdkafka's and Sarama's defaults differ from Kafka's murmur2",
    )


def _differing(settings: Settings, facts: TopicFacts, topics: Iterable[str]) -> str:
    """Return the partition counts of those `topics` that exist, or nothing when they are equal."""
    names = [topic_name(topic, settings.run_mode) for topic in topics]
    counts = {name: facts.infos[name].partitions for name in names if name in facts.infos}
    return ", ".join(f"{name} {count}" for name, count in counts.items()) if len(set(counts.values())) > 1 else ""


def look_back(settings: FusionSettings, calendars: Iterable[str], now_ms: int) -> tuple[int, str]:
    """Return how far back in ms a rebuild reads the inputs at most, and the interval that needs it.

    Unknown calendars are skipped; without any, the market counts as always open.
    """
    known = []
    for name in calendars or ():
        try:
            known.append(SessionCalendar.of(name))
        except CalendarError:
            continue
    spans = [
        (_span(calendar, interval, kept_bars(settings, interval), now_ms), interval)
        for calendar in known or [SessionCalendar.of("24x7")]
        for interval in settings.intervals
    ]
    return max(spans)


def _span(calendar: SessionCalendar, interval: str, bars: int, now_ms: int) -> int:
    """Return the time in ms that the last `bars` scheduled bars span, rounded up by at most 1 %."""
    low, high = 0, bars * interval_ms(interval)
    while calendar.slots_between(interval, now_ms - high, now_ms) < bars and high < now_ms:
        low, high = high, 2 * high
    while high - low > high // 100 + 1:
        middle = (low + high) // 2
        if calendar.slots_between(interval, now_ms - middle, now_ms) < bars:
            low = middle
        else:
            high = middle
    return high


def _topic(settings: Settings, topic: str, facts: TopicFacts) -> list[Finding]:
    name = topic_name(topic, settings.run_mode)
    check = f"topic {settings.topics.on_broker(name)}"
    info = facts.infos.get(name)
    if info is None and topic in table_specs():
        return [skipped(check, "does not exist, and is optional; workers started before it is created do not read it")]
    if info is None:
        return [fail(check, "does not exist", "create it: `aquiline topics create --partitions N`, with the count of the others")]
    found = [
        *_single(check, topic, info),
        *_cleanup(check, topic, info),
        *_retention(check, topic, info, settings, facts),
        *_times(check, topic, info),
        *_sizes(check, topic, info, settings, facts.infos),
        *_leaders(check, info, settings.run_mode),
        *_replicas(check, info, settings.run_mode, facts.replicas.get(name), facts.in_sync.get(name)),
    ]
    return found or [ok(check, _summary(topic, info))]


def _summary(topic: str, info: TopicInfo) -> str:
    kept = "compacted" if topic_specs()[topic].compacted else f"retention {_span_text(_retention_ms(info))}"
    return f"{info.partitions} partition{'s' if info.partitions > 1 else ''}, {kept}"


def _single(check: str, topic: str, info: TopicInfo) -> Iterator[Finding]:
    if topic in table_specs() and info.partitions != 1:
        yield fail(
            check,
            f"has {info.partitions} partitions and must have 1, as a decision names one offset in it; workers refuse to start",
            "delete it and create it again: `aquiline topics create`",
        )


def _cleanup(check: str, topic: str, info: TopicInfo) -> Iterator[Finding]:
    policy = info.config.get("cleanup.policy", "delete")
    if topic_specs()[topic].compacted and policy != "compact":
        yield fail(
            check,
            f"cleanup.policy is {policy!r}, which deletes old records; the last record of each key must stay"
            + (", or a halt ends by itself" if topic == Topic.CONTROL else ""),
            _alter(info, "cleanup.policy=compact"),
        )
    if not topic_specs()[topic].compacted and "compact" in policy:
        yield fail(
            check, f"cleanup.policy is {policy!r}, which deletes all but the last record of a symbol", _alter(info, "cleanup.policy=delete")
        )


def _retention(check: str, topic: str, info: TopicInfo, settings: Settings, facts: TopicFacts) -> Iterator[Finding]:
    if topic_specs()[topic].compacted:
        return
    held_ms = _retention_ms(info)
    needed_ms, why = _needed(topic, settings, facts.look_back_ms)
    if held_ms is not None and (needed_ms is None or held_ms < needed_ms):
        wanted = -1 if needed_ms is None else 2 * needed_ms
        yield fail(check, f"retention is {_span_text(held_ms)}; {why}", _alter(info, f"retention.ms={wanted}"))
    elif topic in INPUTS and settings.run_mode is RunMode.LIVE:
        yield from _replayable(check, info, facts.infos.get(topic_name(Topic.SIGNAL_AUDIT, settings.run_mode)))
    if topic in {*INPUTS, *_OUTPUTS, Topic.INSTRUMENT_EVENTS} and info.config.get("retention.bytes", "-1") != "-1":
        yield warn(
            check,
            f"retention.bytes is {info.config['retention.bytes']}, which may delete records before retention.ms",
            _alter(info, "retention.bytes=-1"),
        )


def _replayable(check: str, info: TopicInfo, audit: TopicInfo | None) -> Iterator[Finding]:
    held_ms, audited_ms = _retention_ms(info), 0 if audit is None else _retention_ms(audit)
    if held_ms is not None and (audited_ms is None or held_ms < audited_ms):
        yield warn(
            check,
            f"retention is {_span_text(held_ms)}, that of the audit {_span_text(audited_ms)}: older audit records cannot be verified",
            _alter(info, f"retention.ms={-1 if audited_ms is None else audited_ms}"),
        )


def _needed(topic: str, settings: Settings, look_back_ms: int) -> tuple[int | None, str]:
    """Return the retention in ms that a topic needs (None for unlimited), and why."""
    fusion = settings.fusion
    if topic == Topic.INSTRUMENT_EVENTS:
        return None, "splits need unlimited retention: books are rebuilt with them"
    if topic in INPUTS:
        return (
            look_back_ms,
            f"rebuilding a book needs {_span_text(look_back_ms)} (window_bars, slow_window_bars and epoch_slots of the slowest interval)",
        )
    if topic == Topic.NOTES:
        return (
            MAX_BLACKOUT_AHEAD_MS,
            f"a blackout may be announced {_span_text(MAX_BLACKOUT_AHEAD_MS)} ahead, and workers read it when they start",
        )
    if topic in _OUTPUTS:
        memory_ms = max(_DAY_MS, fusion.cool_down_ms, fusion.flip_flop_window_ms, *(fusion.entry_validity(i) for i in fusion.intervals))
        return memory_ms, f"a worker that takes over reads {_span_text(memory_ms)} of it, to know which signals are open"
    return 0, ""


def _times(check: str, topic: str, info: TopicInfo) -> Iterator[Finding]:
    kind = info.config.get("message.timestamp.type", "CreateTime")
    if kind != "LogAppendTime" and topic in {*INPUTS, *_OUTPUTS, Topic.CANDLES, *table_specs()}:
        yield fail(
            check,
            f"message.timestamp.type is {kind}, so staleness and deadlines depend on the producers' clocks",
            _alter(info, "message.timestamp.type=LogAppendTime"),
        )


def _sizes(check: str, topic: str, info: TopicInfo, settings: Settings, infos: Mapping[str, TopicInfo]) -> Iterator[Finding]:
    held = _max_bytes(info)
    if topic == Topic.SIGNAL_AUDIT and held < _LEAST_AUDIT_BYTES:
        yield fail(
            check,
            f"max.message.bytes is {held}; an audit record with a long answer has up to {_LEAST_AUDIT_BYTES} bytes, so its "
            "trigger would never finish",
            _alter(info, f"max.message.bytes={_LEAST_AUDIT_BYTES}"),
        )
    if topic == Topic.DEAD_LETTERS:
        inputs = [infos[name] for name in (topic_name(one, settings.run_mode) for one in (*INPUTS, Topic.CANDLES)) if name in infos]
        needed = max((_max_bytes(one) for one in inputs), default=0) + _HEADER_BYTES
        if held < needed:
            yield fail(
                check,
                f"max.message.bytes is {held}; a dead letter holds the original record and headers, up to {needed} bytes",
                _alter(info, f"max.message.bytes={needed}"),
            )


def _replicas(check: str, info: TopicInfo, run_mode: RunMode, replicas: int | None, in_sync: int | None) -> Iterator[Finding]:
    least = int(info.config.get("min.insync.replicas", "1"))
    if replicas is None or in_sync is None:
        return
    if in_sync < least:
        yield fail(
            check,
            f"{in_sync} of {replicas} replicas are in sync and min.insync.replicas is {least}: nothing can be appended",
            "restart the missing brokers" if replicas >= least else "raise the topic's replication factor, or lower min.insync.replicas",
        )
    elif run_mode is RunMode.LIVE and (replicas < _LIVE_REPLICAS or least < _LIVE_IN_SYNC):
        yield warn(
            check,
            f"{replicas} replica{'s' if replicas > 1 else ''} with min.insync.replicas {least}: losing a broker may lose records",
            f"in live, keep {_LIVE_REPLICAS} replicas and min.insync.replicas {_LIVE_IN_SYNC} (`aquiline topics create --replication 3`)",
        )


def _leaders(check: str, info: TopicInfo, run_mode: RunMode) -> Iterator[Finding]:
    if info.config.get("unclean.leader.election.enable") == "true":
        say = fail if run_mode is RunMode.LIVE else warn
        yield say(
            check,
            "unclean.leader.election.enable is true: a replica that lags may become leader, and acknowledged records are lost",
            _alter(info, "unclean.leader.election.enable=false"),
        )


def _retention_ms(info: TopicInfo) -> int | None:
    """Return the retention in ms, None for unlimited."""
    held = int(info.config.get("retention.ms", "604800000"))
    return None if held < 0 else held


def _max_bytes(info: TopicInfo) -> int:
    return int(info.config.get("max.message.bytes", "1048588"))


def _alter(info: TopicInfo, setting: str) -> str:
    return f"kafka-configs.sh --alter --topic {info.broker_name} --add-config {setting}"


def _span_text(span_ms: int | None) -> str:
    if span_ms is None:
        return "unlimited"
    for unit, name in ((_DAY_MS, "days"), (_HOUR_MS, "hours"), (60_000, "minutes")):
        if span_ms >= 2 * unit:
            return f"{span_ms / unit:.3g} {name}"
    return f"{span_ms} ms"
