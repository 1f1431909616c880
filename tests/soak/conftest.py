"""A Kafka, a Redis and a fast simulator of the soak's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local import LocalKafka, LocalRedis
from tests.conftest import start_or_skip
from tests.integration.fusion.engines import PacedSimulator
from tests.soak.market import SoakSite


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[SoakSite]:
    with (
        start_or_skip(LocalKafka(tmp_path / "kafka")) as kafka,
        start_or_skip(LocalRedis(tmp_path / "redis")) as redis,
        PacedSimulator(tmp_path / "engine", time_scale=0.001) as engine,
    ):
        site = SoakSite(tmp_path, kafka.url, redis.url, engine.url)
        await site.open_market()
        yield site
        await site.close()
