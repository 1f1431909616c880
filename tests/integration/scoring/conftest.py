"""A Kafka for these tests alone: topics have fixed names by run mode. And a desk on it for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deploy.local import LocalKafka
from tests.conftest import start_or_skip
from tests.integration.scoring.desk import Desk


@pytest.fixture(scope="package")
def scoring_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    with start_or_skip(LocalKafka(tmp_path_factory.mktemp("scoring-kafka"))) as server:
        yield server


@pytest.fixture
async def desk(scoring_kafka: LocalKafka, tmp_path: Path, unique: str) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path, scoring_kafka.url, unique)
    await desk.open()
    yield desk
    await desk.close()
