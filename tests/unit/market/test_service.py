"""The market service on the in-process bus, and what it refuses before it starts."""

from __future__ import annotations

import pytest

from schemas import RunMode, Topic, topic_name
from services.core.bus import BusError, NewTopic
from services.core.bus.memory import MemoryBus
from services.core.clock import SystemClock
from services.core.health import Health
from services.core.settings import MarketSettings, Settings, SettingsError
from services.market.service import MarketService
from tests.unit.market.service_spec import Desk, MarketServiceSpec


@pytest.fixture
async def desk() -> Desk:
    desk = Desk(MemoryBus(SystemClock()), "market")
    await desk.set_up()
    return desk


class TestOnTheInProcessBus(MarketServiceSpec):
    """The common promises."""


async def test_topics_with_other_partition_counts_are_refused() -> None:
    bus = MemoryBus(SystemClock())
    admin = await bus.admin()
    names = [topic_name(topic, RunMode.DEMO) for topic in (Topic.CANDLES, Topic.MARKET_FEATURES, Topic.DEAD_LETTERS)]
    await admin.create([NewTopic(name, count, {}) for name, count in zip(names, (4, 3, 1), strict=True)])
    service = MarketService(bus, Settings(run_mode=RunMode.DEMO), SystemClock(), Health())
    with pytest.raises(BusError, match=r"demo\.market-features' has 3 partitions and 'demo\.candles' has 4"):
        await service.run()


def test_an_aggregation_that_cannot_be_built_is_refused() -> None:
    bus = MemoryBus(SystemClock())
    settings = Settings(market=MarketSettings(aggregate={"1h": ["15m"]}))
    with pytest.raises(SettingsError, match=r"market\.aggregate: 15m bars cannot be built from 1h bars"):
        MarketService(bus, settings, SystemClock(), Health())
