"""The market service on the in-process bus, and what it refuses before it starts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from schemas import RunMode, Topic, topic_name
from services.core.bus import BusError, NewTopic, TopicPartition
from services.core.bus.memory import MemoryBus, MemoryReader
from services.core.clock import SystemClock
from services.core.folding.disposition import Disposition
from services.core.health import Health
from services.core.settings import MarketSettings, Settings, SettingsError
from services.market.service import MarketService
from tests.unit.core.folding.desk import until
from tests.unit.market.build import MONDAY, candle
from tests.unit.market.service_spec import Desk, MarketServiceSpec, market


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


class _MuteReader(MemoryReader):
    """Says that the broker does not answer while its bus is mute."""

    mute = False

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        if self.mute:
            raise BusError("the broker does not answer")
        return await super().end_offsets(partitions)


class _MuteBus(MemoryBus):
    """A broker whose instruments cannot be read on request."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.instruments: _MuteReader | None = None

    async def reader(self, *, client_id: str) -> MemoryReader:
        if not client_id.endswith("-instruments"):
            return await super().reader(client_id=client_id)
        self.instruments = _MuteReader(self._topics, client_id)
        return self.instruments


async def test_candles_of_known_instruments_go_on_while_instruments_cannot_be_read() -> None:
    bus = _MuteBus()
    desk = Desk(bus, "market")
    await desk.set_up()
    async with desk.running() as service:
        await until(lambda: bool(service._partitions))
        assert bus.instruments is not None
        bus.instruments.mute = True
        stranger = candle(MONDAY, symbol="NO.XNAS")
        await desk.publish(Topic.CANDLES, [stranger, *market(2)])
        await until(lambda: service.counts.records == 1 + len(market(2)))
    assert service.counts.dispositions == {Disposition.DEAD_LETTERED: 1, Disposition.FOLDED: len(market(2))}
