"""The live feed from an exchange on the bus in memory: ccxt as it is, against a server that answers as Binance does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.core.bus import Bus
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.settings import BusSettings, SettingsError
from services.feeds.ccxt_exchange import Exchange, default_symbol
from services.feeds.exchange_feed import Backoff
from tests.unit.feeds.fake_binance import FastClock
from tests.unit.feeds.feed_spec import MODE, FeedSpec, with_topics


@pytest.fixture
def clock() -> FastClock:
    return FastClock()


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    made = await with_topics(connect(BusSettings(url="memory://"), SystemClock()))
    yield made
    await made.close()


class TestInMemory(FeedSpec):
    pass


def test_an_exchange_that_ccxt_does_not_know_is_said(clock: FastClock) -> None:
    with pytest.raises(SettingsError, match=r"--exchange 'binanse' is not an exchange of ccxt; did you mean .*binance"):
        Exchange("binanse", {}, MODE, clock)


@pytest.mark.parametrize(
    ("name", "exchange", "symbol"),
    [
        ("BTC/USDT", "binance", "BTC-USDT.BINANCE"),
        ("BTC/USDT:USDT", "binance", "BTC-USDT-USDT.BINANCE"),
        ("ETH/USD", "coinbaseexchange", "ETH-USD.COINBASEEXCH"),
    ],
)
def test_a_market_has_a_symbol_of_its_own(name: str, exchange: str, symbol: str) -> None:
    assert default_symbol(name, exchange) == symbol


def test_pauses_grow_to_a_minute_and_are_as_long_as_the_other_side_asks_for() -> None:
    pause = Backoff(1_000)
    pauses = [pause.next_ms() for _ in range(12)]
    assert all(500 * 2**at <= one <= 1_000 * 2**at for at, one in enumerate(pauses[:6]))
    assert all(30_000 <= one <= 60_000 for one in pauses[6:])
    assert pause.next_ms(90_000) == 90_000
    pause.reset()
    assert pause.next_ms() <= 1_000
