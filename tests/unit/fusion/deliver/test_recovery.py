"""A takeover finds every symbol whose bars a prompt may show, also one that has been silent for as long as its session was closed."""

from __future__ import annotations

from services.core.bus import Committed, NewTopic, TopicPartition
from services.core.bus.memory import MemoryBus
from services.core.calendar import SessionCalendar
from services.fusion.deliver.recovery import Recovery
from tests.unit.fusion.build import MARKET, VISION, bar_at, instrument, record, settings
from tests.unit.fusion.log import Folder, no_tables, taken_over

STOCK, COIN = "AAPL.XNAS", "BTC.XCRY"
FRIDAY_OPEN_MS = 1_767_969_000_000  # 2026-01-09 14:30 UTC
MINUTES, UPDATES = 200, 30  # more records than the first look-back, and bars enough in it
OUTPUTS = ["demo.strategy-signals", "demo.signal-audit"]


async def test_a_stock_keeps_its_book_over_a_weekend_of_busier_symbols() -> None:
    using = settings()
    folder = Folder(using, instruments=[instrument(STOCK, calendar="XNYS"), instrument(COIN)])
    session_close_ms = SessionCalendar.of("XNYS").session_close_ms(FRIDAY_OPEN_MS)
    assert session_close_ms is not None
    stock = [bar_at(at_ms, symbol=STOCK) for at_ms in range(session_close_ms - 80 * 60_000, session_close_ms, 60_000)]
    coin_open_ms = session_close_ms + 40 * 3_600_000
    coin = [
        bar_at(coin_open_ms + minute * 60_000, 100 + update / 1_000, symbol=COIN, closed=update == UPDATES)
        for minute in range(MINUTES)
        for update in range(UPDATES + 1)
    ]
    log = [record(number, message) for number, message in enumerate([*stock, *coin])]
    folder.clock.advance_to(coin_open_ms + MINUTES * 60_000)
    bus = MemoryBus(folder.clock)
    config = {"message.timestamp.type": "CreateTime"}
    await (await bus.admin()).create([NewTopic(name, 1, config) for name in (MARKET, VISION, *OUTPUTS)])
    producer = await bus.producer(client_id="test")
    for one in log:
        await producer.send(one.topic, key=one.key, value=one.value, timestamp_ms=one.timestamp_ms)

    committed = {TopicPartition(MARKET, 0): Committed(len(log), "a2:0:0:1"), TopicPartition(VISION, 0): Committed(0, "a2:0:0:1")}
    await taken_over(Recovery(bus, using, folder.clock, folder.intake, folder.books, tables=no_tables(bus, folder.clock)), committed)

    assert folder.books.symbols(0) == {STOCK, COIN}
    assert len(folder.book(STOCK).bars["1m"]) == len(stock)
