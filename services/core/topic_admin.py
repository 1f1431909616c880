"""Creates the topics with the required configuration, and refuses to start on topics without it.

Every topic stamps records with the broker's append time (LogAppendTime): staleness then has one clock, and recorded data is not
deleted by retention the moment it is appended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from schemas import RunMode, Topic, topic_name
from services.core.bus import Admin, Bus, BusError, NewTopic
from services.core.table_inputs import table_specs, topic_specs

INPUTS: Final = (Topic.MARKET_FEATURES, Topic.VISION_FEATURES)
"""The topics that books, and so prompts, are rebuilt from."""

CO_PARTITIONED: Final = (*INPUTS, Topic.STRATEGY_SIGNALS, Topic.SIGNAL_AUDIT)
"""Topics whose partition p one worker reads and writes together."""

_DAY_MS: Final = 86_400_000
_FOREVER: Final = "-1"
_RETENTION: Final[Mapping[str, str]] = {
    Topic.CANDLES: str(30 * _DAY_MS),
    # Books are rebuilt from these: the slowest interval's window has to be in them.
    Topic.MARKET_FEATURES: str(90 * _DAY_MS),
    Topic.VISION_FEATURES: str(90 * _DAY_MS),
    Topic.INSTRUMENT_EVENTS: _FOREVER,
    Topic.STRATEGY_SIGNALS: str(90 * _DAY_MS),
    Topic.SIGNAL_AUDIT: str(365 * _DAY_MS),
    Topic.SIGNAL_OUTCOMES: str(365 * _DAY_MS),
    Topic.DEAD_LETTERS: str(30 * _DAY_MS),
}
_TABLE_RETENTION: Final = str(90 * _DAY_MS)
"""Of tables that are not compacted: longer than a blackout may lie ahead of its note, or one that is still to come would be lost."""
_TRUNCATE_ATTEMPTS: Final = 20
_TRUNCATE_RETRY_S: Final = 0.25
_MAX_MESSAGE_BYTES: Final = 1_048_588
_MAX_DEAD_LETTER_BYTES: Final = 2_097_164
"""A dead letter holds the original record, however large its topic let it be, and headers."""

SCORED_TOGETHER: Final = (Topic.STRATEGY_SIGNALS, Topic.MARKET_FEATURES, Topic.SCORING_JUDGES)
"""Topics whose partition p one scorer reads and writes together."""

_CHANGELOG_CONFIG: Final = {
    # Kafka compacts closed segments only, and they are read in full when a worker takes over: by default that may be a gigabyte.
    "segment.bytes": str(64 * 1024 * 1024),
    "segment.ms": str(_DAY_MS // 24),
    "min.cleanable.dirty.ratio": "0.1",
}

_MEND: Final = (
    "make new topics with one count and copy the records over (a topic's count cannot be lowered, "
    "and raising it sends keys to other partitions)"
)


def topic_config(topic: str, replication: int) -> dict[str, str]:
    """Return the topic's configuration by Kafka's names, everything said that matters."""
    tables, compacted = table_specs(), topic_specs()[topic].compacted
    kept = {"cleanup.policy": "compact"} if compacted else {"cleanup.policy": "delete", "retention.bytes": _FOREVER}
    retention_ms = _TABLE_RETENTION if topic in tables and not compacted else _RETENTION.get(topic)
    return {
        **kept,
        **({"retention.ms": retention_ms} if retention_ms is not None else {}),
        **(_CHANGELOG_CONFIG if topic == Topic.SCORING_JUDGES else {}),
        **({"min.compaction.lag.ms": str(7 * _DAY_MS)} if topic in tables and compacted else {}),
        "max.message.bytes": str(_MAX_DEAD_LETTER_BYTES if topic == Topic.DEAD_LETTERS else _MAX_MESSAGE_BYTES),
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(max(1, replication - 1)),
    }


def kept_for(topics: Iterable[Topic], days: int) -> dict[Topic, dict[str, str]]:
    """Return the configuration that keeps the records of `topics` for `days`."""
    return {topic: {"retention.ms": str(days * _DAY_MS)} for topic in topics}


def wanted_topics(
    run_mode: RunMode,
    partitions: int,
    replication: int = 1,
    overrides: Mapping[Topic, Mapping[str, str]] | None = None,
) -> list[NewTopic]:
    """Return every topic of `run_mode` as it should be, those of installed inputs among them; raise InputError."""
    replaced = {str(topic): config for topic, config in (overrides or {}).items()}
    return [
        NewTopic(
            topic_name(topic, run_mode),
            partitions if spec.partitioned else 1,
            {**topic_config(topic, replication), **replaced.get(topic, {})},
            replication,
        )
        for topic, spec in topic_specs().items()
    ]


async def ensure_topics(
    admin: Admin,
    run_mode: RunMode,
    partitions: int,
    replication: int = 1,
    overrides: Mapping[Topic, Mapping[str, str]] | None = None,
) -> list[str]:
    """Create those topics of `run_mode` that do not exist, and return their names.

    Partitioned topics get `partitions`, the others one; `overrides` adds to or replaces a topic's configuration. Raises
    BusError when a topic exists with another partition count: that is never changed, since keys would move.
    """
    wanted = wanted_topics(run_mode, partitions, replication, overrides)
    existing = await admin.describe([new.name for new in wanted])
    differing = [
        f"{new.name} has {existing[new.name].partitions} partitions and should have {new.partitions}"
        for new in wanted
        if new.name in existing and existing[new.name].partitions != new.partitions
    ]
    if differing:
        raise BusError(f"topics exist with other partition counts: {'; '.join(differing)}. Ask for the count they have, or {_MEND}")
    missing = [new for new in wanted if new.name not in existing]
    await admin.create(missing)
    return [new.name for new in missing]


async def check_topics(admin: Admin, run_mode: RunMode) -> int:
    """Return the one partition count of the co-partitioned topics; raise BusError, naming the fix, unless they exist as they must be."""
    names = [topic_name(topic, run_mode) for topic in CO_PARTITIONED]
    found = await admin.describe(names)
    if missing := [name for name in names if name not in found]:
        raise BusError(
            f"topics {', '.join(missing)} do not exist; create them with `aquiline topics create --partitions N`, "
            "N as many partitions as the others have or are to have"
        )
    if len({info.partitions for info in found.values()}) > 1:
        counts = ", ".join(f"{name}: {found[name].partitions}" for name in names)
        raise BusError(
            f"topics that are read and written together must have one partition count ({counts}): "
            f"a symbol's market and vision features would reach different workers; {_MEND}"
        )
    for topic in INPUTS:
        name = topic_name(topic, run_mode)
        if (kind := found[name].config.get("message.timestamp.type", "CreateTime")) != "LogAppendTime":
            raise BusError(
                f"topic {name!r} has message.timestamp.type={kind}, so that staleness and deadlines would depend on the producers' clocks; "
                f"set it: kafka-configs.sh --alter --topic {found[name].broker_name} --add-config message.timestamp.type=LogAppendTime"
            )
    return found[names[0]].partitions


async def optional_topics(admin: Admin, run_mode: RunMode) -> list[str]:
    """Return the names of the optional topics that exist; raise BusError, naming the fix, when one has several partitions."""
    found = await admin.describe([topic_name(topic, run_mode) for topic in table_specs()])
    for name, info in found.items():
        if info.partitions != 1:
            raise BusError(
                f"topic {name!r} has {info.partitions} partitions and must have 1, as a decision names one offset in it; delete it and "
                "create it again with `aquiline topics create`"
            )
    return sorted(found)


async def existing_topics(bus: Bus, topics: Iterable[str], run_mode: RunMode) -> list[str]:
    """Return the names of `topics`, without optional ones that do not exist; raise BusError."""
    names, optional = {topic: topic_name(topic, run_mode) for topic in topics}, table_specs()
    admin = await bus.admin()
    try:
        found = await admin.describe([name for topic, name in names.items() if topic in optional])
    finally:
        await admin.close()
    return [name for topic, name in names.items() if topic not in optional or name in found]


async def check_scoring_topics(bus: Bus, run_mode: RunMode) -> int:
    """Return the partition count of the scorer's inputs and changelog; raise BusError, naming the fix, unless they exist with one."""
    admin = await bus.admin()
    together = [topic_name(topic, run_mode) for topic in SCORED_TOGETHER]
    others = [topic_name(topic, run_mode) for topic in (Topic.SIGNAL_OUTCOMES, Topic.DEAD_LETTERS)]
    try:
        found = await admin.describe([*together, *others])
    finally:
        await admin.close()
    if missing := [name for name in (*together, *others) if name not in found]:
        raise BusError(
            f"topics {', '.join(missing)} do not exist on {bus.address}; create them with `aquiline topics create --partitions N`, "
            "N as many partitions as the others have"
        )
    if len({found[name].partitions for name in together}) > 1:
        counts = ", ".join(f"{name}: {found[name].partitions}" for name in together)
        raise BusError(
            f"the scorer's inputs and changelog must have one partition count ({counts}): signals would be judged where "
            f"their bars are not; {_MEND}"
        )
    changelog = topic_name(Topic.SCORING_JUDGES, run_mode)
    if "compact" not in (policy := found[changelog].config.get("cleanup.policy", "delete")):
        raise BusError(
            f"topic {changelog!r} has cleanup.policy={policy!r}, which deletes the scorer's open signals; "
            f"set it: kafka-configs.sh --alter --topic {found[changelog].broker_name} --add-config cleanup.policy=compact"
        )
    return found[together[0]].partitions


async def check_same_partitions(bus: Bus, source: str, target: str, *others: str) -> None:
    """Raise BusError, naming the fix, unless all these topics exist, and `target` has as many partitions as `source`."""
    admin = await bus.admin()
    try:
        found = await admin.describe([source, target, *others])
    finally:
        await admin.close()
    for name in (source, target, *others):
        if name not in found:
            raise BusError(f"topic {name!r} does not exist on {bus.address}; create it with `aquiline topics create`")
    if found[source].partitions != found[target].partitions:
        raise BusError(
            f"topic {target!r} has {found[target].partitions} partitions and {source!r} has {found[source].partitions}; a symbol must "
            f"have the same partition in both: {_MEND}"
        )


async def empty_topics(bus: Bus, run_mode: RunMode, partitions: int) -> None:
    """Truncate the topics of `run_mode` that are not compacted, and create missing ones with `partitions` or as many as the others have.

    Raises BusError.
    """
    names = {topic: topic_name(topic, run_mode) for topic in topic_specs()}
    admin = await bus.admin()
    try:
        existing = await admin.describe([names[Topic.MARKET_FEATURES]])
        await ensure_topics(admin, run_mode, next((one.partitions for one in existing.values()), partitions))
        for attempt in range(1, _TRUNCATE_ATTEMPTS + 1):
            try:
                return await admin.truncate([name for topic, name in names.items() if not topic_specs()[topic].compacted])
            except BusError:
                # A topic just created may have no leader yet.
                if attempt == _TRUNCATE_ATTEMPTS:
                    raise
                await asyncio.sleep(_TRUNCATE_RETRY_S)
    finally:
        await admin.close()
