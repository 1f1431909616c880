"""A Kafka for these tests alone: topics have fixed names by run mode, and compacted ones that others made cannot be emptied."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.local import LocalKafka
from tests.conftest import start_or_skip


@pytest.fixture(scope="package")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    with start_or_skip(LocalKafka(tmp_path_factory.mktemp("kafka"))) as server:
        yield server
