"""The declared stack on a broker of its own, since its topics have fixed names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import LocalKafka
from tests.conftest import start_or_skip
from tests.integration.compose.stack import Stack, kafka_properties


@pytest.fixture
def stack_kafka(tmp_path: Path) -> Iterator[LocalKafka]:
    """Return an empty broker with the declared properties."""
    with start_or_skip(LocalKafka(tmp_path / "kafka", properties=kafka_properties())) as server:
        yield server


@pytest.fixture
def stack(tmp_path: Path, stack_kafka: LocalKafka) -> Iterator[Stack]:
    """Return the profile `default`, nothing of it started yet; it ends with the test."""
    made = Stack(tmp_path / "stack", stack_kafka)
    yield made
    made.close()
