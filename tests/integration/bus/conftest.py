"""The contract's site, once over memory and once over a real Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from tests.integration.bus.support import Site


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
def bus_settings(request: pytest.FixtureRequest) -> BusSettings:
    """Return settings of either bus."""
    if request.param == "memory":
        return BusSettings(url="memory://")
    settings: BusSettings = request.getfixturevalue("kafka_bus_settings")
    return settings


@pytest.fixture
async def site(bus_settings: BusSettings, unique: str) -> AsyncIterator[Site]:
    """Return a site on either bus."""
    bus = connect(bus_settings, SystemClock())
    site = Site(bus, await bus.admin(), unique)
    yield site
    await site.close()
