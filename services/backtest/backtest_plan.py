"""Turns a backtest's options into a plan: the data to play, the settings, and what the worker runs on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import orjson
from pydantic import ValidationError

from schemas import Candle, Instrument, Restatement, VisionFeatures, interval_ms
from services.backtest.backtest_settings import backtest_settings, intervals_of_strategy, named_after
from services.backtest.blind import blind, undated
from services.backtest.feed import MODE, CandleFeed, Feed
from services.backtest.log_feed import LogFeed
from services.backtest.notes_file import read_notes
from services.backtest.request import DEMO, NONE, RECORDED, SIMULATOR, TOPIC, BacktestRequest
from services.core.bus.connect import connect
from services.core.bus.memory import MemoryBus
from services.core.calendar import CalendarError
from services.core.clock import SystemClock, VirtualClock
from services.core.health import Health
from services.core.settings import Settings, SettingsError, load
from services.feeds import samples
from services.feeds.file_instruments import instruments_for
from services.feeds.files import FileError, Reading, ReadOptions, merged, read_all
from services.fusion.rooms import WorkerDependencies
from services.fusion.service import connect_engine, load_tokenizer
from services.inference.engine import Engine
from services.inference.simulator.instant import InstantSimulator
from services.market.own_features import load_features
from services.replay.log_source import FileLog, TopicLog
from services.scoring.report.number_format import moment
from services.vision.recorded import RECORDED_FILE, load_recorded

_SLOWER: Final = {"1d": ["1w"], "1m": ["15m", "1h"]}
"""Slower intervals that are built unless --intervals names others."""
_LOG_ENDS: Final = (".jsonl", ".jsonl.gz")


class BacktestPlan(NamedTuple):
    """The data and settings of a run."""

    options: BacktestRequest
    feed: Feed
    settings: Settings
    fingerprint: str
    """A hash of everything that the results depend on, except the engine's answers."""
    data_notes: Sequence[str] = ()
    """Notes on the files: their layout, and what was derived from them."""


@dataclass(frozen=True, slots=True)
class CandleData:
    """Closed candles to play, and what is known beside them."""

    name: str
    content: bytes
    """Bytes that identify the data: of other data they are others."""
    candles: Sequence[Candle]
    instruments: Sequence[Instrument]
    restatements: Sequence[Restatement] = ()
    added: Mapping[tuple[str, str, int], Mapping[str, float]] = field(default_factory=dict)
    """Features of the user's own by symbol, interval and close of their bar."""
    notes: Sequence[str] = ()


async def prepare(options: BacktestRequest, *, hidden: bool = False) -> BacktestPlan:
    """Return the plan for `options`, with symbols and dates `hidden` or shown; raise SettingsError, LogFileError or BusError."""
    if len(options.data) == 1 and (options.data[0] == TOPIC or options.data[0].endswith(_LOG_ENDS)):
        if options.notes is not None:
            raise SettingsError("--notes goes with candles (--data demo or files): a log has its own notes")
        if options.blind:
            raise SettingsError("--blind needs candles (--data demo or files): the features in a log have prices and symbols of their own")
        feed, settings = await _log(options)
    else:
        if options.notes is not None and options.blind:
            raise SettingsError("--notes and --blind exclude each other: notes name what the blind run hides")
        data = await asyncio.to_thread(_candle_data, options)
        return await asyncio.to_thread(plan_of_candles, options, data, hidden=hidden)
    return _plan(options, feed, settings)


def plan_of_candles(options: BacktestRequest, data: CandleData, *, hidden: bool = False) -> BacktestPlan:
    """Return the plan to play `data`, with symbols and dates `hidden` or shown; raise SettingsError."""
    feed, settings = _candle_feed(options, data, hidden=hidden)
    return _plan(options, feed, settings, () if hidden else data.notes)


def _plan(options: BacktestRequest, feed: Feed, settings: Settings, data_notes: Sequence[str] = ()) -> BacktestPlan:
    settings = named_after(settings, feed.fingerprint)
    shaping = settings.model_dump(mode="json", include={"fusion", "market", "scoring", "engine"})
    asked = orjson.dumps([feed.fingerprint, options.since_ms, options.until_ms, options.engine, shaping])
    return BacktestPlan(options, feed, settings, hashlib.sha256(asked).hexdigest()[:16], data_notes)


def worker_dependencies(settings: Settings, engine: str, clock: VirtualClock, bus: MemoryBus) -> WorkerDependencies:
    """Return the worker's dependencies: the backtest's bus and clock, no Redis, and the engine that was asked for."""
    tokenizer = load_tokenizer(settings.engine)
    made: Engine = InstantSimulator(tokenizer) if engine == SIMULATOR else connect_engine(settings.engine, clock)
    stand_in = connect_engine(settings.engine.model_copy(update={"kind": "rules"}), clock) if settings.fusion.fallback == "rules" else None
    return WorkerDependencies(
        bus=bus, settings=settings, clock=clock, health=Health(), engine=made, fallback=stand_in, tokenizer=tokenizer, redis=None
    )


async def _log(options: BacktestRequest) -> tuple[Feed, Settings]:
    """Return an exported log, or the topics, as a feed, with the prompt settings that it was written with."""
    name = options.data[0]
    if name == TOPIC:
        settings = load(Path(options.config) if options.config else None)
        if settings.bus.url == "memory://":
            raise SettingsError("--data topic: bus.url is memory://, which no other process can read; name a kafka:// bus in --config")
        bus = connect(settings.bus, SystemClock(), settings.topics)
        inputs = TopicLog(bus, settings)
        try:
            await inputs.open()
            records = await inputs.all_records(options.since_ms, options.until_ms)
        finally:
            await inputs.close()
            await bus.close()
        reference, written = inputs.reference, settings
    else:
        held = FileLog(Path(name), None)
        if held.damaged:
            raise SettingsError(f"--data {name}: {len(held.damaged)} records are damaged, the first: {held.damaged[0]}")
        records, reference, written = held.all_records(options.until_ms), held.reference, held.settings
    if not records:
        raise SettingsError(f"--data {name}: no record lies between --since and --until")
    _refuse_empty_span(options, min(one.timestamp_ms for one in records), max(one.timestamp_ms for one in records))
    base = written.fusion.model_dump(mode="json", exclude={"intervals"})
    intervals = written.fusion.intervals
    feed = LogFeed(name, written.run_mode, reference, records, intervals[0], options.since_ms)
    return feed, backtest_settings(options, intervals, (), vision=feed.has_charts, base=base)


def _refuse_empty_span(options: BacktestRequest, first_ms: int, last_ms: int) -> None:
    """Raise SettingsError when all data lie before `since`, so that nothing is decided."""
    if options.since_ms is not None and options.since_ms > last_ms:
        raise SettingsError(
            f"--since {moment(options.since_ms)}: --data {' '.join(options.data)} covers {moment(first_ms)} to {moment(last_ms)}"
            + (" up to --until" if options.until_ms is not None else "")
            + "; choose a time before its end"
        )


def demo_data() -> CandleData:
    """Return the five stocks that ship with Aquiline."""
    candles = [candle for stock in samples.load_stocks(MODE).values() for candle in stock]
    content = samples.BARS_FILE.read_bytes() + samples.SPLITS_FILE.read_bytes()
    return CandleData("the demo's five stocks", content, candles, samples.load_instruments(MODE), samples.load_splits(MODE))


def _candle_data(options: BacktestRequest) -> CandleData:
    """Return the candles that the options name; raise SettingsError."""
    if options.data == (DEMO,):
        return demo_data()
    try:
        candles, name, content, readings = _candles(options)
    except (FileError, CalendarError) as error:
        raise SettingsError(f"--data: {error}") from error
    instruments = _instruments(options, candles) if candles else []
    notes = [*map(str, readings), *(f"{one.symbol}: price increment {one.price_increment}" for one in instruments)]
    return CandleData(name, content, candles, instruments, notes=notes)


def _candle_feed(options: BacktestRequest, data: CandleData, *, hidden: bool) -> tuple[Feed, Settings]:
    candles = [one for one in data.candles if options.until_ms is None or one.ts_close_ms <= options.until_ms]
    if not candles:
        raise SettingsError(f"--data {' '.join(options.data)}: no bar lies between --since and --until")
    _refuse_empty_span(options, min(one.ts_close_ms for one in candles), max(one.ts_close_ms for one in candles))
    charts, chart_bytes = _charts(options)
    held = sorted({candle.interval for candle in candles}, key=interval_ms)
    intervals = _intervals(options, held)
    settings = backtest_settings(options, intervals, [one for one in intervals[1:] if one not in held], vision=bool(charts))
    own = settings.market.features_file
    notes, note_bytes = ([], b"") if options.notes is None else read_notes(Path(options.notes))
    content = data.content + chart_bytes + (b"" if own is None else _bytes_of(own)) + note_bytes
    feed = CandleFeed(
        name=data.name,
        fingerprint=hashlib.sha256(content).hexdigest()[:16],
        instruments=data.instruments,
        restatements=data.restatements,
        candles=candles,
        charts=charts,
        plan=settings.market.aggregate,
        since_ms=options.since_ms,
        own=None if own is None else load_features(own),
        added=data.added,
        notes=notes,
    )
    return (blind(feed), undated(settings, candles)) if hidden else (feed, settings)


def _bytes_of(features: Path) -> bytes:
    try:
        return features.read_bytes()
    except OSError as error:
        raise SettingsError(f"market.features_file names {str(features)!r}, which cannot be read: {error.strerror}") from error


def _candles(options: BacktestRequest) -> tuple[list[Candle], str, bytes, list[Reading]]:
    """Return the closed candles, their name, the bytes that they came from, and what was read of each file."""
    paths = [Path(name) for name in options.data]
    how = ReadOptions(
        run_mode=MODE,
        symbol=options.symbol,
        interval=options.interval,
        calendar=options.calendar,
        now_ms=SystemClock().now_ms(),
        time_zone=options.time_zone,
        stamp=options.stamp,
        extended=options.extended,
    )
    readings = read_all(paths, how)
    # A forming bar is not over: what it will have been is not known, and history holds what was.
    candles = [candle for candle in merged(readings) if candle.closed]
    described = [options.calendar, options.price_increment, options.currency, options.price_adjustment]
    read_as = [options.symbol, options.interval, options.time_zone, options.stamp, options.extended]
    content = orjson.dumps([described, read_as]) + b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)
    return candles, ", ".join(path.name for path in paths), content, readings


def _charts(options: BacktestRequest) -> tuple[Mapping[tuple[str, int], VisionFeatures], bytes]:
    """Return vision features by symbol and window end, in this run mode, and the bytes that identify them."""
    if options.vision == NONE:
        return {}, b""
    file = RECORDED_FILE if options.vision == RECORDED else Path(options.vision)
    try:
        recorded = load_recorded(file)
        content = file.read_bytes()
    except (OSError, EOFError, ValueError) as error:
        raise SettingsError(f"--vision {options.vision}: {file} cannot be read as recorded vision features: {error}") from error
    return {key: chart.model_copy(update={"run_mode": MODE}) for key, chart in recorded.items()}, content


def _instruments(options: BacktestRequest, candles: Sequence[Candle]) -> list[Instrument]:
    try:
        return instruments_for(
            candles,
            run_mode=MODE,
            currency=options.currency,
            price_increment=options.price_increment,
            calendar=options.calendar,
            price_adjustment=options.price_adjustment,
        )
    except ValidationError as error:
        raise SettingsError(f"--price-increment, --currency, --calendar or --price-adjustment: {error}") from error
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _intervals(options: BacktestRequest, held: Sequence[str]) -> list[str]:
    """Return the intervals in the prompt, fastest first: those of the data, and those built from the fastest."""
    if options.intervals is None:
        if len(held) > 1:
            return list(held)
        wanted = intervals_of_strategy(options)
        return wanted if wanted[:1] == list(held) else [*held, *_SLOWER.get(held[0], [])]
    asked = [name.strip() for name in options.intervals.split(",") if name.strip()]
    if not asked or asked[0] not in held:
        raise SettingsError(f"--intervals {options.intervals!r}: the first must be an interval of the data: {', '.join(held)}")
    return asked
