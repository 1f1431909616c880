"""`aquiline score report`: from files and from topics it finds the same, and what is wrong with either is said in a sentence."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.progress import Progress
from typer.testing import CliRunner

from schemas import Dividend, Instrument, InstrumentEvent, MarketFeatures, Message, RunMode, Signal, SignalOutcome, Topic, topic_name
from schemas.examples import EXAMPLES
from services.cli.score import app
from services.core.bus import NewTopic, Record
from services.core.bus.memory import MemoryBus
from services.core.clock import SystemClock
from services.core.exported_log import Header, LogWriter
from services.core.lifecycle import explain
from services.core.settings import Settings
from services.scoring.report import ReportBar
from services.scoring.report.input_selection import OutcomeFilter, ReportSources
from services.scoring.report.inputs_from_files import Files, read_files
from services.scoring.report.inputs_from_topics import read_topics
from tests.unit.scoring.report import market
from tests.unit.scoring.report.market import HOUR_MS, START_MS, Plan

MODE = RunMode.SHADOW
ALL = OutcomeFilter(None, None, frozenset())
World = tuple[list[SignalOutcome], list[MarketFeatures], list[Signal]]
PLAN = Plan(bars=60, symbols=("AAPL.XNAS", "IBM.XNYS"))


def features(bar: ReportBar, *, closed: bool = True, revision: int = 0) -> MarketFeatures:
    return MarketFeatures(
        schema_version=1,
        run_mode=RunMode.LIVE,
        symbol=bar.symbol,
        interval=bar.interval,
        ts_open_ms=bar.ts_close_ms - HOUR_MS,
        ts_close_ms=bar.ts_close_ms,
        open=bar.close,
        high=bar.close,
        low=bar.close,
        close=bar.close,
        volume=1,
        closed=closed,
        revision=revision,
        features={},
    )


def signal_of(outcome: SignalOutcome, model: str = "MiniCPM4.1-8B") -> Signal:
    example = EXAMPLES[Signal]
    assert isinstance(example, Signal)
    return example.model_copy(update={"signal_id": outcome.signal_id, "symbol": outcome.symbol, "model": model, "run_mode": MODE})


@pytest.fixture(scope="module")
def world() -> World:
    """Return outcomes, their bars with some that are not theirs, and their signals."""
    bars = market.walk(PLAN)
    outcomes = market.trade(PLAN, bars)
    every = [features(bar) for of_symbol in bars.values() for bar in of_symbol]
    first = bars["AAPL.XNAS"][0]
    others = [
        features(replace(first, close=1.0), closed=False),
        features(replace(first, symbol="MSFT.XNAS")),
        features(replace(first, interval="2h")),
        features(replace(first, ts_close_ms=START_MS - HOUR_MS)),
    ]
    return outcomes, [*others, *every], [signal_of(one) for one in outcomes]


def write(file: Path, messages: Iterable[Message]) -> Path:
    text = b"".join(one.encode() + b"\n" for one in messages)
    file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)
    return file


def from_files(folder: Path, world: World, wanted: OutcomeFilter = ALL) -> ReportSources:
    outcomes, bars, signals = world
    files = Files(
        write(folder / "outcomes.jsonl", outcomes),
        (write(folder / "bars.jsonl.gz", bars),),
        None,
        write(folder / "signals.jsonl", signals),
    )
    with Progress(disable=True) as progress:
        return read_files(files, wanted, progress)


def from_topics(publish: dict[Topic, list[tuple[str, bytes | None]]], wanted: OutcomeFilter = ALL) -> ReportSources:
    async def play() -> ReportSources:
        bus = MemoryBus(SystemClock())
        admin = await bus.admin()
        topics = [Topic.SIGNAL_OUTCOMES, Topic.MARKET_FEATURES, Topic.INSTRUMENTS, Topic.INSTRUMENT_EVENTS, Topic.STRATEGY_SIGNALS]
        await admin.create([NewTopic(topic_name(topic, MODE), 3, {}) for topic in topics])
        producer = await bus.producer(client_id="test")
        for topic, records in publish.items():
            for key, value in records:
                await (await producer.send(topic_name(topic, MODE), key=key.encode(), value=value))
        with Progress(disable=True) as progress:
            found = await read_topics(bus, Settings(run_mode=MODE), wanted, progress)
        await bus.close()
        return found

    return asyncio.run(play())


def records(
    messages: Iterable[SignalOutcome | MarketFeatures | Signal | InstrumentEvent | Dividend | Instrument],
) -> list[tuple[str, bytes | None]]:
    return [(one.symbol, one.encode()) for one in messages]


def test_files_and_topics_find_the_same(tmp_path: Path, world: World) -> None:
    outcomes, bars, signals = world
    files = from_files(tmp_path, world)
    topics = from_topics(
        {
            Topic.SIGNAL_OUTCOMES: records(outcomes),
            Topic.MARKET_FEATURES: records(bars),
            Topic.STRATEGY_SIGNALS: records([*signals, *signals]),
        }
    )
    assert {one.signal_id for one in files.outcomes} == {one.signal_id for one in topics.outcomes} == {one.signal_id for one in outcomes}
    assert set(files.bars) == set(topics.bars) == {"AAPL.XNAS", "IBM.XNYS"}
    for symbol, of_symbol in files.bars.items():
        assert {(bar.ts_close_ms, bar.close) for bar in of_symbol} == {(bar.ts_close_ms, bar.close) for bar in topics.bars[symbol]}
    assert files.facts["Model"] == topics.facts["Model"] == "MiniCPM4.1-8B"
    assert (list(files.notes), list(topics.notes)) == ([], [])


def test_only_the_outcomes_asked_for_are_taken(tmp_path: Path, world: World) -> None:
    since_ms, until_ms = START_MS + 20 * HOUR_MS, START_MS + 40 * HOUR_MS
    found = from_files(tmp_path, world, OutcomeFilter(since_ms, until_ms, frozenset({"IBM.XNYS"})))
    assert found.outcomes
    assert {one.symbol for one in found.outcomes} == {"IBM.XNYS"}
    assert all(since_ms <= one.ts_exit_ms < until_ms for one in found.outcomes)
    assert set(found.bars) == {"IBM.XNYS"}


def test_a_corrected_bar_takes_the_place_of_the_first_and_a_redelivered_one_does_not(tmp_path: Path, world: World) -> None:
    outcomes, bars, signals = world
    bar = next(one for one in bars if one.symbol == "IBM.XNYS" and one.ts_close_ms == START_MS + 10 * HOUR_MS)
    at = ReportBar(bar.symbol, bar.interval, bar.ts_open_ms, bar.ts_close_ms, 7.0, 7.0, 7.0, 7.0)
    again = [*bars, features(at, revision=1), features(replace(at, close=9.0), revision=1), bar]
    found = from_files(tmp_path, (outcomes, again, signals))
    assert [one.close for one in found.bars["IBM.XNYS"] if one.ts_close_ms == bar.ts_close_ms] == [7.0]


def test_records_that_cannot_be_read_are_counted_and_told(world: World) -> None:
    outcomes, _, _ = world
    strange = outcomes[0].model_copy(update={"run_mode": RunMode.DEMO})
    found = from_topics({Topic.SIGNAL_OUTCOMES: [*records(outcomes), ("AAPL.XNAS", b"{"), *records([strange])]})
    assert len(found.outcomes) == len(outcomes)
    assert any("2 records of topic 'shadow.signal-outcomes' could not be read" in note for note in found.notes)
    assert any("no longer holds the outcomes' bars" in note for note in found.notes)


def test_splits_of_the_outcomes_symbols_are_found(world: World) -> None:
    outcomes, bars, _ = world
    splits = [
        InstrumentEvent(schema_version=1, run_mode=RunMode.LIVE, symbol=symbol, event="split", ratio=2.0, effective_ms=START_MS)
        for symbol in ("IBM.XNYS", "OTHER.XNYS")
    ]
    found = from_topics(
        {
            Topic.SIGNAL_OUTCOMES: records(outcomes),
            Topic.MARKET_FEATURES: records(bars),
            Topic.INSTRUMENT_EVENTS: records(splits),
        }
    )
    assert [one.symbol for one in found.restatements] == ["IBM.XNYS"]


def total_return(symbol: str, adjustment: str = "none") -> Instrument:
    return Instrument.model_validate(
        {
            "schema_version": 1,
            "run_mode": RunMode.LIVE,
            "symbol": symbol,
            "currency": "USD",
            "price_increment": "0.01",
            "calendar": "24x7",
            "price_adjustment": adjustment,
            "returns": "total",
        }
    )


def paid(symbol: str) -> Dividend:
    return Dividend(schema_version=1, run_mode=RunMode.LIVE, symbol=symbol, event="dividend", amount=0.5, effective_ms=START_MS)


@pytest.mark.parametrize(("adjustment", "applied"), [("none", ["split", "dividend"]), ("split", ["dividend"]), ("split_dividend", [])])
def test_bars_are_restated_for_what_their_instrument_says(world: World, adjustment: str, applied: list[str]) -> None:
    outcomes, bars, _ = world
    split = InstrumentEvent(schema_version=1, run_mode=RunMode.LIVE, symbol="IBM.XNYS", event="split", ratio=2.0, effective_ms=START_MS)
    found = from_topics(
        {
            Topic.SIGNAL_OUTCOMES: records(outcomes),
            Topic.MARKET_FEATURES: records(bars),
            Topic.INSTRUMENTS: [*records([total_return("IBM.XNYS", adjustment)]), ("OLD.XNYS", None)],
            Topic.INSTRUMENT_EVENTS: records([split, paid("IBM.XNYS")]),
        }
    )
    assert [one.event for one in found.restatements] == applied
    assert not found.notes


def test_bars_instruments_and_corporate_events_may_come_from_an_exported_log(tmp_path: Path, world: World) -> None:
    outcomes, bars, _ = world
    split = InstrumentEvent(schema_version=1, run_mode=RunMode.LIVE, symbol="IBM.XNYS", event="split", ratio=2.0, effective_ms=START_MS)
    log = tmp_path / "log.jsonl.gz"
    messages: list[tuple[Topic, MarketFeatures | InstrumentEvent | Dividend | Instrument]] = [
        (Topic.INSTRUMENT_EVENTS, split),
        (Topic.INSTRUMENT_EVENTS, paid("IBM.XNYS")),
        (Topic.INSTRUMENT_EVENTS, paid("OTHER.XNYS")),  # nothing says that returns count it
        (Topic.INSTRUMENTS, total_return("IBM.XNYS")),
    ]
    messages += [(Topic.MARKET_FEATURES, bar) for bar in bars]
    with LogWriter(log, Header(Settings(run_mode=MODE), whole=True)) as writer:
        for offset, (topic, message) in enumerate(messages):
            writer.write(Record(topic_name(topic, MODE), 0, offset, START_MS, message.symbol.encode(), message.encode()))
    files = Files(write(tmp_path / "outcomes.jsonl", outcomes), (log,), None, None)
    with Progress(disable=True) as progress:
        found = read_files(files, ALL, progress)
    assert found.bars == from_files(tmp_path, world).bars
    assert [(one.symbol, one.event) for one in found.restatements] == [("IBM.XNYS", "split"), ("IBM.XNYS", "dividend")]


def test_the_command_prints_the_report_and_writes_the_page(tmp_path: Path, world: World) -> None:
    from_files(tmp_path, world)
    names = [str(tmp_path / name) for name in ("outcomes.jsonl", "bars.jsonl.gz", "signals.jsonl", "report.html")]
    result = CliRunner().invoke(app, ["report", "--outcomes", names[0], "--bars", names[1], "--signals", names[2], "--out", names[3]])
    assert result.exit_code == 0, result.output
    assert "random traders" in result.output
    assert "MiniCPM4.1-8B" in Path(names[3]).read_text()


def test_nothing_judged_yet_is_a_whole_report_and_a_word_on_why(tmp_path: Path) -> None:
    file = write(tmp_path / "outcomes.jsonl", [])
    result = CliRunner().invoke(app, ["report", "--outcomes", str(file)])
    assert result.exit_code == 0, result.output
    assert "No signal was judged" in result.output
    assert "holds no outcome" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--outcomes", "{folder}/none.jsonl"], 1, "none.jsonl cannot be read: No such file or directory"),
        (["--outcomes", "{folder}/bad.jsonl"], 1, "bad.jsonl, line 2: conviction = 7: Input should be less than or equal to 1"),
        (["--outcomes", "{folder}/good.jsonl", "--out", "{folder}/none/report.html"], 2, "an existing folder"),
        (["--outcomes", "{folder}/good.jsonl", "--symbol", "apple"], 2, "--symbol 'apple' is not a symbol with its venue"),
        (["--since", "2026-02-01", "--until", "2026-01-01", "--outcomes", "x"], 2, "--since must be before --until"),
        (["--bars", "x"], 2, "need --outcomes"),
        (["--bus", "memory://"], 2, "bus.url is memory://"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    good = market.outcome()
    write(tmp_path / "good.jsonl", [good])
    (tmp_path / "bad.jsonl").write_bytes(good.encode() + b"\n" + good.encode().replace(b'"conviction":0.5', b'"conviction":7') + b"\n")
    ran = CliRunner().invoke(app, ["report", *(argument.format(folder=tmp_path) for argument in arguments)], env={"COLUMNS": "300"})
    explained = explain(ran.exception) if isinstance(ran.exception, Exception) else None
    told = (ran.exit_code, ran.output) if explained is None else (explained[0], explained[1][0])
    assert told[0] == code, told
    assert said in " ".join(told[1].split())


def test_help_shows_whole_commands_to_copy() -> None:
    result = CliRunner().invoke(app, ["report", "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "aquiline score report --outcomes outcomes.jsonl --bars features.jsonl --out report.html" in result.output
