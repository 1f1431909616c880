"""The vision service on a real Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from tests.unit.vision.service_spec import Desk, VisionServiceSpec

pytestmark = pytest.mark.integration


@pytest.fixture
async def desk(kafka_bus_settings: BusSettings, unique: str) -> AsyncIterator[Desk]:
    bus = KafkaBus(kafka_bus_settings, SystemClock())
    desk = Desk(bus, unique)
    await desk.set_up()
    yield desk
    await bus.close()


class TestOnKafka(VisionServiceSpec):
    """The common promises."""
