"""A Kafka for these tests alone, since the worker's topics have fixed names, and a site on it for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deploy.local import LocalKafka, LocalRedis
from tests.conftest import start_or_skip
from tests.integration.fusion.engines import PacedSimulator, ScriptedEngine
from tests.integration.fusion.site import Site


@pytest.fixture(scope="package")
def fusion_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    with start_or_skip(LocalKafka(tmp_path_factory.mktemp("fusion-kafka"))) as server:
        yield server


@pytest.fixture(scope="package")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PacedSimulator]:
    with PacedSimulator(tmp_path_factory.mktemp("simulator")) as server:
        yield server


@pytest.fixture
async def site(fusion_kafka: LocalKafka, redis_server: LocalRedis, simulator: PacedSimulator, tmp_path: Path) -> AsyncIterator[Site]:
    """Return a site with the simulator, opened."""
    site = Site(tmp_path, fusion_kafka.url, redis_server.url, simulator.url)
    await site.open()
    yield site
    await site.close()


@pytest.fixture
async def scripted(fusion_kafka: LocalKafka, redis_server: LocalRedis, tmp_path: Path) -> AsyncIterator[tuple[Site, ScriptedEngine]]:
    """Return a site with an engine that answers as it is told."""
    async with ScriptedEngine().serving() as engine:
        site = Site(tmp_path, fusion_kafka.url, redis_server.url, engine.url)
        await site.open()
        yield site, engine
        await site.close()
