"""The message contracts of Aquiline: pydantic models, and what is generated from them in `schemas/generated/`."""

from schemas.audit import LATENCY_STAGES, MAX_ANSWER_CHARACTERS, MAX_ANSWER_CHUNKS, AuditRecord, Outcome, is_intact
from schemas.base import Interval, Message, RunMode, Symbol, interval_ms
from schemas.control import Control, HaltState
from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.instrument import (
    AssetClass,
    CorporateEvent,
    Dividend,
    Instrument,
    InstrumentEvent,
    Restatement,
    SymbolChange,
    TickStep,
    decode_corporate_event,
)
from schemas.market import MAX_FEATURES, Candle, MarketFeatures
from schemas.note import ALL_SYMBOLS, Blackout, Note
from schemas.outcome import ExitReason, Order, SignalOutcome
from schemas.position import HeldPosition
from schemas.signal import (
    Action,
    AsOf,
    Cancel,
    CancelReason,
    Mode,
    OffsetRef,
    Signal,
    Source,
    Vision,
    decode_signal_message,
)
from schemas.topics import SPECS, Topic, TopicSpec, live_name, topic_name
from schemas.vision import Detector, Image, Pattern, Skill, VisionFeatures

__all__ = [
    "ALL_SYMBOLS",
    "LATENCY_STAGES",
    "MAX_ANSWER_CHARACTERS",
    "MAX_ANSWER_CHUNKS",
    "MAX_FEATURES",
    "SPECS",
    "Action",
    "AsOf",
    "AssetClass",
    "AuditRecord",
    "Blackout",
    "Cancel",
    "CancelReason",
    "Candle",
    "Control",
    "CorporateEvent",
    "DeadLetter",
    "DeadLetterReason",
    "Detector",
    "Dividend",
    "ExitReason",
    "HaltState",
    "HeldPosition",
    "Image",
    "Instrument",
    "InstrumentEvent",
    "Interval",
    "MarketFeatures",
    "Message",
    "Mode",
    "Note",
    "OffsetRef",
    "Order",
    "Outcome",
    "Pattern",
    "Restatement",
    "RunMode",
    "Signal",
    "SignalOutcome",
    "Skill",
    "Source",
    "Symbol",
    "SymbolChange",
    "TickStep",
    "Topic",
    "TopicSpec",
    "Vision",
    "VisionFeatures",
    "decode_corporate_event",
    "decode_signal_message",
    "interval_ms",
    "is_intact",
    "live_name",
    "topic_name",
]
