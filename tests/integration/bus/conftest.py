"""The contract's site, over memory and over a real Kafka, and over memory with topics that have other names on the broker."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from schemas import Topic
from services.core.bus.connect import connect
from services.core.bus.decoded import DecodedBus, RecordDecoders
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from services.core.topic_settings import TopicSettings
from tests.integration.bus.support import Site


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
def bus_settings(request: pytest.FixtureRequest) -> BusSettings:
    """Return settings of either bus."""
    if request.param == "memory":
        return BusSettings(url="memory://")
    settings: BusSettings = request.getfixturevalue("kafka_bus_settings")
    return settings


class OtherNames:
    """Gives every topic another name on the broker."""

    def on_broker(self, name: str) -> str:
        """Return the broker's name."""
        return f"their.{name}"

    def of_broker(self, name: str) -> str:
        """Return the name above the bus."""
        return name.removeprefix("their.")


@pytest.fixture(params=["memory", "memory, renamed and decoded", pytest.param("kafka", marks=pytest.mark.integration)])
async def site(request: pytest.FixtureRequest, unique: str) -> AsyncIterator[Site]:
    """Return a site on each bus."""
    on_kafka = request.param == "kafka"
    bus_settings: BusSettings = request.getfixturevalue("kafka_bus_settings") if on_kafka else BusSettings(url="memory://")
    bus = connect(bus_settings, SystemClock())
    if "renamed" in request.param:
        decoders = RecordDecoders(TopicSettings(decoders={Topic.NOTES: "avro"}, registry_url="http://127.0.0.1:9"))
        bus = DecodedBus(bus, OtherNames(), decoders)
    site = Site(bus, await bus.admin(), unique)
    yield site
    await site.close()
