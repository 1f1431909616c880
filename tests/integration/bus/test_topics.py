"""The topics come out the same on memory and on a real Kafka, and topics that do not fit are refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from deploy.local import LocalKafka
from schemas import RunMode, Topic, topic_name
from services.cli.topics import app
from services.core.bus import BusError, NewTopic
from services.core.topic_admin import CO_PARTITIONED, INPUTS, check_topics, ensure_topics, kept_for, wanted_topics
from tests.integration.bus.support import Site


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """Return a Kafka of this module's own: the topics' names are fixed."""
    with LocalKafka(tmp_path_factory.mktemp("kafka-topics")) as server:
        yield server


async def test_topics_are_created_once_as_wanted_and_pass_the_check(site: Site) -> None:
    overrides = kept_for(INPUTS, 365)
    created = await ensure_topics(site.admin, RunMode.DEMO, 3, overrides=overrides)
    assert {topic_name(topic, RunMode.DEMO) for topic in Topic} == set(created)
    await check_topics(site.admin, RunMode.DEMO)
    assert await ensure_topics(site.admin, RunMode.DEMO, 3) == []
    found = await site.admin.describe(created)
    for wanted in wanted_topics(RunMode.DEMO, 3, overrides=overrides):
        info = found[wanted.name]
        assert wanted.partitions == info.partitions
        assert wanted.config == {name: info.config[name] for name in wanted.config}


async def test_shadow_reads_the_live_inputs_and_creates_its_own_outputs(site: Site) -> None:
    created = await ensure_topics(site.admin, RunMode.SHADOW, 2)
    assert {"market-features", "vision-features", "shadow.strategy-signals", "shadow.signal-audit"} <= set(created)
    assert "strategy-signals" not in created


async def test_missing_topics_are_named_with_the_mend(site: Site) -> None:
    with pytest.raises(BusError, match=r"signal-audit do not exist; create them with `aquiline topics create"):
        await check_topics(site.admin, RunMode.LIVE)


async def test_counts_that_differ_are_refused(site: Site) -> None:
    names = [topic_name(topic, RunMode.REPLAY) for topic in CO_PARTITIONED]
    await site.admin.create([NewTopic(name, 2 + (name == names[1]), {}) for name in names])
    with pytest.raises(BusError, match=r"replay\.vision-features: 3"):
        await check_topics(site.admin, RunMode.REPLAY)
    with pytest.raises(BusError, match=r"replay\.vision-features has 3 partitions and should have 2"):
        await ensure_topics(site.admin, RunMode.REPLAY, 2)


@pytest.mark.integration
def test_the_command_creates_and_compares(kafka: LocalKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_RUN_MODE", "shadow")
    monkeypatch.setenv("COLUMNS", "200")
    with_bus = ["--bus", kafka.url]
    run = CliRunner().invoke
    created = run(app, ["create", "--partitions", "2", "--input-days", "365", *with_bus])
    assert created.exit_code == 0, created.output
    described = run(app, ["describe", *with_bus])
    assert described.exit_code == 0, described.output
    assert "does not exist" not in described.output
    assert "every topic exists" in run(app, ["create", "--partitions", "2", *with_bus]).output
    refused = run(app, ["create", "--partitions", "5", *with_bus])
    assert isinstance(refused.exception, BusError)
