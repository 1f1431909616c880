"""Servers that chaos may kill: a Kafka, a Redis and a simulator for each test, and a site on them."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deploy.local import LocalKafka, LocalRedis
from tests.chaos.load import SEED
from tests.conftest import start_or_skip
from tests.integration.fusion.engines import PacedSimulator
from tests.integration.fusion.site import Site


@pytest.fixture(scope="session")
def rounds() -> int:
    """Return how often a fault is repeated: 1 in the tests' everyday run; `make chaos ROUNDS=n` says more."""
    return int(os.environ.get("ROUNDS", "1"))


@pytest.fixture
def draw(request: pytest.FixtureRequest) -> random.Random:
    """Return what the moments of faults are drawn from: CHAOS_SEED and the test's name."""
    return random.Random(f"{SEED}/{request.node.name}")  # noqa: S311 - to be repeated, not to be secret


@pytest.fixture(scope="package")
def chaos_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    with start_or_skip(LocalKafka(tmp_path_factory.mktemp("chaos-kafka"))) as server:
        yield server


@pytest.fixture(scope="package")
def chaos_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    with start_or_skip(LocalRedis(tmp_path_factory.mktemp("chaos-redis"))) as server:
        yield server


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[PacedSimulator]:
    with PacedSimulator(tmp_path / "engine") as server:
        yield server


@pytest.fixture
async def site(chaos_kafka: LocalKafka, chaos_redis: LocalRedis, engine: PacedSimulator, tmp_path: Path) -> AsyncIterator[Site]:
    chaos_kafka.start()
    chaos_redis.start()
    site = Site(tmp_path, chaos_kafka.url, chaos_redis.url, engine.url)
    await site.open()
    yield site
    await site.close()
