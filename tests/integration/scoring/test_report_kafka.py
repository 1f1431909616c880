"""`aquiline score report` out of a real Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.local import LocalKafka
from schemas import InstrumentEvent, MarketFeatures, RunMode, Signal, SignalOutcome, Topic, topic_name
from services.cli.calibrate import app as calibrate_app
from services.cli.score import app
from services.core.bus import NewTopic
from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from tests.unit.scoring.report import market
from tests.unit.scoring.report.market import Plan
from tests.unit.scoring.report.test_report_command import features, signal_of

pytestmark = pytest.mark.integration

MODE = RunMode.REPLAY
SYMBOLS = ("AAPL.XNAS", "IBM.XNYS")


async def publish(url: str) -> int:
    """Publish 300 hours of two symbols and what a trader made of them, each outcome twice; return how many outcomes there are."""
    bars = market.walk(Plan(bars=300, symbols=SYMBOLS))
    outcomes = market.trade(Plan(bars=300, symbols=SYMBOLS, run_mode=MODE), bars)
    messages: dict[Topic, Sequence[SignalOutcome | MarketFeatures | InstrumentEvent | Signal]] = {
        Topic.SIGNAL_OUTCOMES: [*outcomes, *outcomes],
        Topic.MARKET_FEATURES: [
            features(bar).model_copy(update={"run_mode": MODE}) for pair in zip(*bars.values(), strict=True) for bar in pair
        ],
        Topic.INSTRUMENTS: [],
        Topic.INSTRUMENT_EVENTS: [],
        Topic.STRATEGY_SIGNALS: [signal_of(one).model_copy(update={"run_mode": MODE}) for one in outcomes],
    }
    bus = KafkaBus(BusSettings(url=url), SystemClock())
    admin = await bus.admin()
    await admin.create([NewTopic(topic_name(topic, MODE), 3, {}) for topic in messages])
    producer = await bus.producer(client_id="test")
    for topic, of_topic in messages.items():
        acks = [await producer.send(topic_name(topic, MODE), key=one.symbol.encode(), value=one.encode()) for one in of_topic]
        await asyncio.gather(*acks)
    await producer.close()
    await admin.close()
    await bus.close()
    return len(outcomes)


def test_what_the_scorer_published_becomes_a_report(scoring_kafka: LocalKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_RUN_MODE", MODE.value)
    outcomes = asyncio.run(publish(scoring_kafka.url))
    page = tmp_path / "report.html"
    options = ["--bus", scoring_kafka.url, "--since", "2024-01-01", "--out", str(page)]
    ran = CliRunner().invoke(app, ["report", *options], env={"COLUMNS": "160"})
    assert ran.exit_code == 0, ran.output
    said = " ".join(ran.output.split())
    assert f"signals to buy or sell {outcomes}" in said
    assert f"{outcomes} outcomes dropped" in said
    assert "random traders" in said
    assert "MiniCPM4.1-8B" in page.read_text()
    fitted = CliRunner().invoke(calibrate_app, ["signals", "--bus", scoring_kafka.url])
    assert "0 completed positions of mode `flash` carry probabilities" in str(fitted.exception), "read from the topic, and none is there"


def test_a_topic_that_is_not_there_is_named(scoring_kafka: LocalKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_RUN_MODE", RunMode.LIVE.value)
    ran = CliRunner().invoke(app, ["report", "--bus", scoring_kafka.url])
    assert "topic 'signal-outcomes' does not exist" in str(ran.exception)
