"""Traces from candle to signal on a real Kafka, to a real OTLP receiver."""

from __future__ import annotations

import pytest

from deploy.local import LocalKafka
from schemas import RunMode
from services.core.bus import Bus
from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from tests.unit.traces.spec import TraceSpec

pytestmark = pytest.mark.integration


@pytest.fixture
def bus(kafka: LocalKafka) -> Bus:
    return KafkaBus(BusSettings(url=kafka.url, request_timeout_ms=3_000), SystemClock())


@pytest.fixture
def run_mode() -> RunMode:
    """Return one that no other test of this folder uses."""
    return RunMode.REPLAY


class TestOnKafka(TraceSpec):
    """All that is promised."""
