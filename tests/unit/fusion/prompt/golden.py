"""Whole prompts as files, special tokens by their names, so that a change of wording is seen in review.

`python -m tests.unit.fusion.prompt.golden` writes them anew.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple

from schemas import Candle, Instrument, MarketFeatures
from services.core.calendar import SessionCalendar
from services.core.clock import VirtualClock
from services.core.fusion_settings import FusionSettings
from services.core.settings import RedisSettings
from services.fusion.prompt.builder import Plan, PromptBuilder
from services.fusion.prompt.chat import TEMPLATES
from services.fusion.prompt.layout import visible
from services.fusion.prompt.store import PrefixStore
from services.fusion.prompt.version import specimen
from services.fusion.state.book import Book
from services.market.book import Book as MarketBook
from services.strategy.folder import shipped
from tests.unit.fusion.build import MODE, seen, tokenizer

FOLDER: Final = Path(__file__).parent / "golden"


class Market(NamedTuple):
    """A market to walk through: its instrument, prices near `price`, a minute's or hour's moves of about `step`, and volumes."""

    symbol: str
    currency: str
    tick: str
    calendar: str
    interval: str
    slower: str
    since_ms: int
    price: float
    step: float
    volume: float


MARKETS: Final = {
    # 2024-11-27 is the day before Thanksgiving: the next session closes early.
    "shib-1h": Market("SHIB-USDT.BINA", "USDT", "0.00000001", "24x7", "1h", "1d", 1_732_665_600_000, 0.00002512, 0.004, 3.2e11),
    "eurusd-1m": Market("EUR-USD.FX", "USD", "0.00001", "FX", "1m", "1h", 1_732_741_200_000, 1.05432, 0.00004, 83.0),
    "brk-a-1h": Market("BRK-A.XNYS", "USD", "0.01", "XNYS", "1h", "1d", 1_731_335_400_000, 712_345.67, 0.002, 44.0),
    "gbpjpy-5m": Market("GBP-JPY.FX", "JPY", "0.001", "FX", "5m", "1h", 1_732_741_200_000, 191.234, 0.0002, 120.0),
    "btc-1m": Market("BTC-USD.CBSE", "USD", "0.01", "24x7", "1m", "15m", 1_732_741_200_000, 93_456.78, 0.0004, 0.37),
    "toyota-5m": Market("7203.XTKS", "JPY", "0.5", "XTKS", "5m", "1d", 1_732_665_600_000, 2_612.5, 0.0006, 51_200.0),
}
BARS: Final = 120


def walk(market: Market) -> Book:
    """Return the book of a seeded walk, with the features that the market service computes."""
    instrument = Instrument.model_validate(
        {
            "schema_version": 1,
            "run_mode": MODE,
            "symbol": market.symbol,
            "currency": market.currency,
            "price_increment": market.tick,
            "calendar": market.calendar,
            "price_adjustment": "none",
        }
    )
    using = FusionSettings(intervals=[market.interval, market.slower], window_bars=24, epoch_slots=16, slow_window_bars=6)
    calendar = SessionCalendar.of(market.calendar)
    book, producer = Book(instrument, using, calendar), MarketBook(instrument, [], {market.interval: [market.slower]})
    draw = random.Random(market.symbol)  # noqa: S311 - prices, not secrets
    price = market.price
    for offset, close_ms in enumerate(calendar.next_closes(market.interval, market.since_ms, BARS)):
        bounds = calendar.bar_bounds(market.interval, close_ms - 1)
        assert bounds is not None
        first, price = price, price * (1 + draw.gauss(0, market.step))
        high, low = max(first, price) * (1 + market.step * draw.random()), min(first, price) * (1 - market.step * draw.random())
        candle = Candle(
            schema_version=1,
            run_mode=MODE,
            symbol=market.symbol,
            interval=market.interval,
            ts_open_ms=bounds[0],
            ts_close_ms=bounds[1],
            open=on_tick(first, market.tick),
            high=on_tick(high, market.tick),
            low=on_tick(low, market.tick),
            close=on_tick(price, market.tick),
            volume=float(f"{market.volume * draw.uniform(0.2, 2):.6g}"),
            closed=offset < BARS - 1,
        )
        if offset == BARS - 40:
            continue  # a slot without trade
        for bar in producer.take(candle, offset).out:
            assert isinstance(bar, MarketFeatures)
            book.fold_market(bar)
    book.fold_vision(seen(book.bars[market.interval].last_close_ms, symbol=market.symbol, interval=market.interval))
    return book


def on_tick(price: float, tick: str) -> float:
    """Return the price on the tick."""
    return round(round(price / float(tick)) * float(tick), len(tick.partition(".")[2]))


def planned(market: Market, mode: Literal["flash", "fast"] = "fast") -> tuple[PromptBuilder, Plan]:
    """Return the plan of a prompt on the last bar of a market."""
    using = FusionSettings(intervals=[market.interval, market.slower], window_bars=24, epoch_slots=16, slow_window_bars=6, mode=mode)
    store = PrefixStore(None, RedisSettings(url="none://"), VirtualClock(0), "golden")
    builder = PromptBuilder(using, tokenizer(), "minicpm4", store, 1 << 20)
    return builder, builder.plan(walk(market), market.interval, mode)


def prompt(market: Market) -> str:
    """Return the whole prompt on the last bar of a market."""
    builder, plan = planned(market)
    pieces = [block.piece for block in plan.prefix.blocks]
    return visible([*pieces, *plan.lines, plan.tail, *builder.template.fast_tail])


def flash_tails() -> str:
    """Return what mode `flash` asks on the last bar of each market: the rest of its prompts is that of mode `fast`."""
    return "".join(f"{name}\n{planned(market, 'flash')[1].tail}\n" for name, market in MARKETS.items())


def _case(market: Market) -> Callable[[], str]:
    return lambda: prompt(market).partition("<|im_start|>user\n")[2]


CASES: Final[dict[str, Callable[[], str]]] = {
    "specimen": lambda: visible(specimen(TEMPLATES["minicpm4"], shipped())),
    "specimen-flash": lambda: visible(specimen(TEMPLATES["minicpm4"], shipped(), flash=True)),
    "tails-flash": flash_tails,
    "specimen-with-notes": lambda: visible(specimen(TEMPLATES["minicpm4"], shipped(), tables=True)).partition("<|im_start|>user\n")[2],
    **{name: _case(market) for name, market in MARKETS.items()},
}
"""The rules stand in the specimens alone: they are the same in every prompt of a mode."""


def path_of(case: str) -> Path:
    """Return the file of a case."""
    return FOLDER / f"{case}.txt"


if __name__ == "__main__":
    for name, render in CASES.items():
        path_of(name).write_text(render(), encoding="utf-8")
