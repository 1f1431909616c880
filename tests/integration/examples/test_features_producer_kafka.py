"""The example producer on a real Kafka: its feature is named and explained in the worker's prompts, also after it was killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local import LocalKafka, LocalRedis
from schemas import MarketFeatures, RunMode, Topic, topic_name
from services.replay.replay_command import Source, show_command, verify_command
from services.strategy.folder import new
from tests.conftest import start_or_skip
from tests.integration.fusion.feed import SYMBOLS, bar
from tests.integration.fusion.site import Site

pytestmark = pytest.mark.integration

PRODUCER = Path(__file__).parents[3] / "examples" / "producer" / "features_producer.py"
CANDLES, FEATURES = (topic_name(topic, RunMode.DEMO) for topic in (Topic.CANDLES, Topic.MARKET_FEATURES))
FACT = '[[facts]]\nnames = ["from_high"]\nunit = "return"\nmeaning = "the way from the highest high of the 20 bars before"\n\n'
FEW = SYMBOLS[:2]
BARS = 40


@pytest.fixture
async def site(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, redis_server: LocalRedis) -> AsyncIterator[Site]:
    """Return a site of its own Kafka, since topics have fixed names, with the rules engine and a strategy that names the feature."""
    strategy = tmp_path / "desk"
    new(strategy, "desk")
    toml = strategy / "strategy.toml"
    toml.write_text(
        toml.read_text()
        .replace("1m = 256\n15m = 64\n1h = 64\n", "1m = 32\n")
        .replace("epoch_slots = 64", "epoch_slots = 16")
        .replace("[[facts]]", f"{FACT}[[facts]]", 1)
    )
    with start_or_skip(LocalKafka(tmp_path_factory.mktemp("kafka"))) as kafka:
        site = Site(tmp_path, kafka.url, redis_server.url, "")
        own = {name: site.values["fusion"][name] for name in ("group", "log_id", "commit_interval_ms", "drain_ms", "prewarm")}
        site.values |= {"engine": {"kind": "rules"}, "fusion": {**own, "strategy": str(strategy)}}
        await site.open(symbols=FEW, history=0)
        yield site
        await site.close()


@contextmanager
def producing(url: str) -> Iterator[None]:
    """Run the producer as its user does, and kill it at the end."""
    process = subprocess.Popen([sys.executable, str(PRODUCER), url.removeprefix("kafka://"), CANDLES, FEATURES])
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def test_a_feature_of_the_producer_is_in_the_prompt_named_and_explained_and_every_prompt_verifies(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = site.worker()
    await worker.start().ready()
    url = site.values["bus"]["url"]
    for numbers in (range(BARS), range(BARS, 2 * BARS)):
        with producing(url):  # the second time after a kill
            await _publish(site, numbers)
            await _decided(site, numbers[-1])
    made = [MarketFeatures.decode(record.value or b"") for record in site.logs.records[Topic.MARKET_FEATURES]]
    by_bar = {(one.symbol, one.ts_close_ms): one for one in made}
    assert len(by_bar) == 2 * BARS * len(FEW)
    assert all(one == by_bar[one.symbol, one.ts_close_ms] for one in made)
    assert not site.logs.dead_letters
    config = site.config()
    assert await verify_command(Source("topic", None, None, None, config))
    assert "every hash matches" in capsys.readouterr().out
    last = max((audit for audit in site.logs.audits if audit.prompt_hash), key=lambda audit: audit.ts_done_ms)
    assert await show_command(Source("topic", None, None, None, config), str(last.trigger_id))
    shown = " ".join(capsys.readouterr().out.split())
    assert "from_high, the way from the highest high of the 20 bars before" in shown
    assert " from_high=" in shown
    assert " mom_12=" not in shown  # nobody publishes it here


async def _publish(site: Site, numbers: range) -> None:
    candles = [bar(symbol, number) for number in numbers for symbol in FEW]
    for one in candles:
        value = one.model_dump_json(exclude={"features"}).encode()
        await site.publish_raw(Topic.CANDLES, one.symbol.encode(), value)


async def _decided(site: Site, number: int) -> None:
    """Return once this bar of each symbol has been decided on."""
    last = {(symbol, bar(symbol, number).ts_close_ms) for symbol in FEW}
    await site.logs.until(
        lambda: last <= {(audit.symbol, audit.trigger.ts_event_ms) for audit in site.logs.audits},
        "a decision on the last bar",
        told=site.tails,
    )
