"""The topics: their names by run mode, their messages and their retention."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.audit import AuditRecord
from schemas.base import Message, RunMode
from schemas.control import Control
from schemas.instrument import Dividend, Instrument, InstrumentEvent, SymbolChange
from schemas.market import Candle, MarketFeatures
from schemas.note import Note
from schemas.outcome import SignalOutcome
from schemas.position import HeldPosition
from schemas.signal import Cancel, Signal
from schemas.vision import VisionFeatures


class Topic(StrEnum):
    """A topic's name in run mode `live`."""

    CANDLES = "candles"
    MARKET_FEATURES = "market-features"
    VISION_FEATURES = "vision-features"
    NOTES = "notes"
    POSITIONS = "positions"
    INSTRUMENTS = "instruments"
    INSTRUMENT_EVENTS = "instrument-events"
    CONTROL = "control"
    STRATEGY_SIGNALS = "strategy-signals"
    SIGNAL_AUDIT = "signal-audit"
    SIGNAL_OUTCOMES = "signal-outcomes"
    SCORING_JUDGES = "scoring-judges-changelog"
    DEAD_LETTERS = "dead-letters"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How a topic is stored. `topic` is its name in run mode `live`; `keyed_by` names the field that is also the record's key."""

    topic: str
    messages: tuple[type[Message], ...]
    keyed_by: str
    compacted: bool
    partitioned: bool
    """True when it must have as many partitions as the other partitioned topics; False when it has one."""
    description: str
    private: bool = False
    """True for a service's own state, which is no contract and may change with any version."""


SPECS: Final[dict[Topic, TopicSpec]] = {
    Topic(spec.topic): spec
    for spec in (
        TopicSpec(
            Topic.CANDLES,
            (Candle,),
            "symbol",
            compacted=False,
            partitioned=True,
            description="Bars, forming and closed.",
        ),
        TopicSpec(
            Topic.MARKET_FEATURES,
            (MarketFeatures,),
            "symbol",
            compacted=False,
            partitioned=True,
            description="Bars with what was computed from them.",
        ),
        TopicSpec(
            Topic.VISION_FEATURES,
            (VisionFeatures,),
            "symbol",
            compacted=False,
            partitioned=True,
            description="Features that a vision model computed from the chart of a window.",
        ),
        TopicSpec(
            Topic.NOTES,
            (Note,),
            "symbol",
            compacted=False,
            partitioned=False,
            description="Optional: short texts on a symbol or on all, shown to the model as quotations, and blackouts.",
        ),
        TopicSpec(
            Topic.POSITIONS,
            (HeldPosition,),
            "symbol",
            compacted=True,
            partitioned=False,
            description="Optional: the position held in each symbol.",
        ),
        TopicSpec(
            Topic.INSTRUMENTS, (Instrument,), "symbol", compacted=True, partitioned=False, description="Instruments that may be traded."
        ),
        TopicSpec(
            Topic.INSTRUMENT_EVENTS,
            (InstrumentEvent, Dividend, SymbolChange),
            "symbol",
            compacted=False,
            partitioned=False,
            description="Splits, dividends and changes of symbol. Kept for ever: a book is rebuilt with them.",
        ),
        TopicSpec(
            Topic.CONTROL,
            (Control,),
            "scope",
            compacted=True,
            partitioned=False,
            description="Halt and resume commands of operators.",
        ),
        TopicSpec(
            Topic.STRATEGY_SIGNALS,
            (Signal, Cancel),
            "symbol",
            compacted=False,
            partitioned=True,
            description="Signals, and cancels of signals.",
        ),
        TopicSpec(
            Topic.SIGNAL_AUDIT,
            (AuditRecord,),
            "symbol",
            compacted=False,
            partitioned=True,
            description="The outcome of each trigger, with its reason.",
        ),
        TopicSpec(
            Topic.SIGNAL_OUTCOMES,
            (SignalOutcome,),
            "symbol",
            compacted=False,
            partitioned=True,
            description="What the market did after each signal.",
        ),
        TopicSpec(
            Topic.SCORING_JUDGES,
            (),
            "symbol",
            compacted=True,
            partitioned=True,
            description="The scorer's open signals and last bars, a record a symbol.",
            private=True,
        ),
        TopicSpec(
            Topic.DEAD_LETTERS,
            (),
            "original key",
            compacted=False,
            partitioned=False,
            description="Records that could not be used: the original bytes, with headers that say why.",
        ),
    )
}

# `control` too: on a compacted topic keyed by scope, a command to the shadow would replace the one to the live workers.
_WRITTEN_BY_SHADOW: Final = frozenset(
    {
        Topic.CONTROL,
        Topic.STRATEGY_SIGNALS,
        Topic.SIGNAL_AUDIT,
        Topic.SIGNAL_OUTCOMES,
        Topic.SCORING_JUDGES,
        Topic.DEAD_LETTERS,
    }
)


def topic_name(topic: str, run_mode: RunMode) -> str:
    """Return the topic's name in `run_mode`.

    `live` has no prefix. `demo` and `replay` prefix every topic with `demo.` or `replay.`. `shadow` reads what `live` reads
    and prefixes with `shadow.` only what it writes, and what operators tell it.
    """
    if run_mode is RunMode.LIVE or (run_mode is RunMode.SHADOW and topic not in _WRITTEN_BY_SHADOW):
        return str(topic)
    return f"{run_mode.value}.{topic}"


def live_name(name: str) -> str:
    """Return the name that the topic called `name` in some run mode has in `live`; other names come back as they are."""
    prefix, _, rest = name.partition(".")
    return rest if prefix in set(RunMode) else name
