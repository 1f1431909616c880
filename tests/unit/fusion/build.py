"""Messages, books and small logs for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from uuid import UUID, uuid5

from schemas import (
    Action,
    AsOf,
    Detector,
    Image,
    Instrument,
    InstrumentEvent,
    MarketFeatures,
    Message,
    Mode,
    OffsetRef,
    Pattern,
    RunMode,
    Signal,
    Skill,
    Topic,
    VisionFeatures,
    interval_ms,
    topic_name,
)
from services.core.bus import Record
from services.core.fusion_settings import FusionSettings
from services.core.settings import BusSettings, EngineSettings, RedisSettings, Settings
from services.core.tokenizer import Tokenizer
from services.fusion.state.triggers import LaneKey, Trigger

MODE = RunMode.DEMO
SYMBOL = "BTC-USD.CBSE"
MINUTE = 60_000
START = 1_719_792_000_000
"""2024-07-01T00:00Z, a Monday."""
MARKET = topic_name(Topic.MARKET_FEATURES, MODE)
VISION = topic_name(Topic.VISION_FEATURES, MODE)
NAMESPACE = UUID(int=1)
SKILLED = Skill(auc=0.56, auc_low=0.53, auc_high=0.59)


def instrument(symbol: str = SYMBOL, *, calendar: str = "24x7", tick: str = "0.01", adjustment: str = "none") -> Instrument:
    return Instrument.model_validate(
        {
            "schema_version": 1,
            "run_mode": MODE,
            "symbol": symbol,
            "currency": "USD",
            "price_increment": tick,
            "calendar": calendar,
            "price_adjustment": adjustment,
        }
    )


def split(effective_ms: int, ratio: float, symbol: str = SYMBOL) -> InstrumentEvent:
    return InstrumentEvent(schema_version=1, run_mode=MODE, symbol=symbol, event="split", ratio=ratio, effective_ms=effective_ms)


def bar_at(
    open_ms: int,
    close: float = 100.0,
    *,
    symbol: str = SYMBOL,
    interval: str = "1m",
    closed: bool = True,
    revision: int = 0,
    atr: float | None = 1.0,
    length_ms: int | None = None,
    run_mode: RunMode = MODE,
) -> MarketFeatures:
    """Return the bar of `interval` that opens at `open_ms`, a hundredth of its price high; `atr` is no more than that."""
    return MarketFeatures(
        schema_version=1,
        run_mode=run_mode,
        symbol=symbol,
        interval=interval,
        ts_open_ms=open_ms,
        ts_close_ms=open_ms + (length_ms or interval_ms(interval)),
        open=close,
        high=close * 1.005,
        low=close * 0.995,
        close=close,
        volume=1_000.0,
        closed=closed,
        revision=revision,
        features={"rsi": 50.0, **({"atr": atr * min(1.0, close / 100)} if atr is not None else {})},
    )


def bar(
    slot: int, close: float = 100.0, *, symbol: str = SYMBOL, interval: str = "1m", closed: bool = True, revision: int = 0
) -> MarketFeatures:
    """Return the bar of the `slot`-th interval from START."""
    return bar_at(START + slot * interval_ms(interval), close, symbol=symbol, interval=interval, closed=closed, revision=revision)


def seen(
    end_ms: int,
    p_up: float = 0.5,
    *,
    symbol: str = SYMBOL,
    interval: str = "1m",
    patterns: Iterable[Pattern] = (),
    skill: Skill | None = SKILLED,
) -> VisionFeatures:
    """Return the features of the window that ends at `end_ms`, by default of a model whose `p_up` prompts show."""
    return VisionFeatures(
        schema_version=1,
        run_mode=MODE,
        symbol=symbol,
        interval=interval,
        window_end_ms=end_ms,
        window_bars=20,
        image=Image(spec="jkx-20/1", width=60, height=60, hash="0" * 16),
        detector=Detector(name="mean", version="1", skill=skill),
        p_up=p_up,
        patterns=list(patterns),
    )


def record(offset: int, message: Message, *, topic: str = MARKET, timestamp_ms: int | None = None, partition: int = 0) -> Record:
    """Return `message` as a record that was appended right after the time that it speaks of."""
    symbol = str(getattr(message, "symbol"))  # noqa: B009 - messages share no such field
    at_ms = getattr(message, "ts_close_ms", getattr(message, "window_end_ms", 0)) + 50
    return Record(topic, partition, offset, at_ms if timestamp_ms is None else timestamp_ms, symbol.encode(), message.encode())


def settings(**fusion: object) -> Settings:
    """Return settings for a small worker in run mode demo, `fusion` changed."""
    values: dict[str, object] = {
        "intervals": ["1m"],
        "window_bars": 16,
        "epoch_slots": 8,
        "min_bars": 3,
        "slow_window_bars": 8,
        "start_from": "earliest",
        "vision_wait_ms": 0,
        "commit_interval_ms": 20,
        "prewarm": False,
        "max_staleness_ms": 60_000,
        **fusion,
    }
    return Settings(
        run_mode=MODE,
        bus=BusSettings(url="memory://"),
        redis=RedisSettings(url="memory://"),
        engine=EngineSettings(),
        fusion=FusionSettings.model_validate(values),
    )


@cache
def tokenizer() -> Tokenizer:
    """Return the tokenizer that is shipped."""
    return Tokenizer((files("services.inference") / "data" / "tokenizer.json").read_bytes(), "the shipped tokenizer")


def ref(offset: int, *, ts_ms: int = START, topic: str = MARKET, ts_event_ms: int | None = None) -> OffsetRef:
    return OffsetRef(topic=topic, partition=0, offset=offset, ts_ms=ts_ms, ts_event_ms=ts_ms if ts_event_ms is None else ts_event_ms)


def trigger(number: int, symbol: str = SYMBOL, *, mode: Mode = "fast", ts_ms: int = START, window_end_ms: int = START) -> Trigger:
    return Trigger(
        uuid5(NAMESPACE, f"trigger {number}"), "closed_bar", LaneKey(symbol, "1m", mode), ref(number, ts_ms=ts_ms), window_end_ms, ts_ms
    )


def signal(
    number: int = 1,
    action: Action = Action.BUY,
    *,
    symbol: str = SYMBOL,
    interval: str = "1m",
    mode: Mode = "fast",
    valid_until_ms: int = START + 3_000,
    trigger_id: UUID | None = None,
    as_of: AsOf | None = None,
) -> Signal:
    entry = action in {Action.BUY, Action.SELL}
    return Signal(
        schema_version=1,
        run_mode=MODE,
        symbol=symbol,
        interval=interval,
        mode=mode,
        signal_id=uuid5(NAMESPACE, f"signal {number}"),
        ts_decided_ms=START,
        trigger_id=trigger_id or uuid5(NAMESPACE, f"trigger {number}"),
        as_of=as_of or AsOf(market=ref(number)),
        valid_until_ms=valid_until_ms,
        action=action,
        conviction=0.5,
        horizon_bars=5,
        horizon_end_ms=START + 5 * MINUTE,
        ref_price="100.00",
        entry_type="limit" if entry else None,
        entry="100.00" if entry else None,
        stop="99.00" if entry else None,
        target="102.00" if entry else None,
        currency="USD",
        vision="absent",
        source="llm",
        degraded=False,
        engine="scripted",
        model="script",
        prompt_version="aq-1",
        prompt_hash="0" * 64,
        epoch="0" * 12,
        prompt_tokens=10,
        latency_ms={},
    )
