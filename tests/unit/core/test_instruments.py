"""Instruments and corporate events as services see them."""

from __future__ import annotations

from schemas import CorporateEvent, Dividend, Instrument, InstrumentEvent, RunMode, SymbolChange, Topic, topic_name
from services.core.bus.memory import MemoryBus
from services.core.clock import VirtualClock
from services.core.instruments import Instruments
from services.core.topic_admin import ensure_topics

MODE = RunMode.DEMO
SYMBOL = "FB.XNAS"
DAY = 86_400_000


def instrument(expiry_ms: int | None = None) -> Instrument:
    return Instrument(
        schema_version=1,
        run_mode=MODE,
        symbol=SYMBOL,
        currency="USD",
        price_increment="0.01",
        calendar="XNYS",
        price_adjustment="none",
        expiry_ms=expiry_ms,
    )


def split(day: int) -> InstrumentEvent:
    return InstrumentEvent(schema_version=1, run_mode=MODE, symbol=SYMBOL, event="split", ratio=2.0, effective_ms=day * DAY)


def dividend(day: int) -> Dividend:
    return Dividend(schema_version=1, run_mode=MODE, symbol=SYMBOL, event="dividend", amount=0.5, effective_ms=day * DAY)


def change(day: int) -> SymbolChange:
    return SymbolChange(
        schema_version=1, run_mode=MODE, symbol=SYMBOL, event="symbol_change", new_symbol="META.XNAS", effective_ms=day * DAY
    )


class Tables:
    """The topics on an in-process bus, and what is known of them."""

    def __init__(self) -> None:
        clock = VirtualClock(0)
        self.bus = MemoryBus(clock)
        self.known = Instruments(self.bus, clock, MODE, "test")

    async def start(self) -> None:
        await ensure_topics(await self.bus.admin(), MODE, 1)
        self.producer = await self.bus.producer(client_id="test")
        await self.known.start()

    async def publish(self, *messages: Instrument | CorporateEvent) -> None:
        for one in messages:
            topic = topic_name(Topic.INSTRUMENTS if isinstance(one, Instrument) else Topic.INSTRUMENT_EVENTS, MODE)
            await (await self.producer.send(topic, key=one.symbol.encode(), value=one.encode()))
        await self.known.catch_up()


async def test_events_are_in_order_of_time_each_once_and_appear_in_a_view_that_was_given_out_before_the_first() -> None:
    tables = Tables()
    await tables.start()
    view = tables.known.restatements(SYMBOL)
    assert list(view) == []
    await tables.publish(split(3), dividend(1), split(3), dividend(3))
    assert [(one.event, one.effective_ms // DAY) for one in view] == [("dividend", 1), ("split", 3), ("dividend", 3)]


async def test_a_symbol_that_is_replaced_expires_when_the_new_one_begins_unless_it_expired_before() -> None:
    tables = Tables()
    await tables.start()
    await tables.publish(instrument(), change(5))
    held = tables.known.get(SYMBOL)
    assert held is not None
    assert held.expiry_ms == 5 * DAY
    assert list(tables.known.restatements(SYMBOL)) == []
    await tables.publish(instrument(expiry_ms=2 * DAY))
    held = tables.known.get(SYMBOL)
    assert held is not None
    assert held.expiry_ms == 2 * DAY


async def test_an_event_that_cannot_be_read_is_passed_over() -> None:
    tables = Tables()
    await tables.start()
    await (await tables.producer.send(topic_name(Topic.INSTRUMENT_EVENTS, MODE), key=SYMBOL.encode(), value=b'{"event":"merger"}'))
    await tables.publish(dividend(1))
    assert [one.event for one in tables.known.restatements(SYMBOL)] == ["dividend"]
