"""`aquiline feed`: publish live candles from an exchange or from growing files."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from schemas import interval_ms
from services.cli.candle_file_options import EXTENDED_HELP, STAMP_HELP, SYMBOL_HELP, TIME_ZONE_HELP, Stamp
from services.cli.options import BusOption, ConfigOption, kafka_settings_on
from services.core import logs
from services.core.bus.connect import connect
from services.core.calendar import ALWAYS_OPEN
from services.core.clock import Clock
from services.core.health import Health
from services.core.lifecycle import Build, OnBus, Service, explain, serve
from services.core.settings import Settings, SettingsError
from services.feeds.ccxt_exchange import Exchange, ccxt_options, default_symbol
from services.feeds.exchange_feed import Backoff, ExchangeFeed, FeedRequest
from services.feeds.file_feed import FileFeed
from services.feeds.read_options import ReadOptions
from services.feeds.symbol_names import Symbols

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Publish live candles.")


@app.callback()
def feed() -> None:
    """Publish live candles."""


@app.command("ccxt")
def from_exchange(
    *,
    exchange: Annotated[str, typer.Option(help="The exchange, by its ccxt name (`binance`, `kraken`).")],
    symbol: Annotated[
        list[str],
        typer.Option(help="A market by its ccxt name (`BTC/USDT`), or with its symbol here (`BTC/USDT=BTC-USDT.BINA`); may be repeated."),
    ],
    interval: Annotated[str, typer.Option(help="The bars' length.")] = "1m",
    history_bars: Annotated[int, typer.Option(min=1, max=100_000, help="Bars before now to start with, where the topic holds none.")] = 500,
    poll_seconds: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between requests for the forming bar.")] = 2.0,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An option of ccxt's own, such as `httpsProxy=http://proxy:3128`; may be repeated."),
    ] = None,
    bus: BusOption = None,
    config: ConfigOption = None,
) -> None:
    """Publish an exchange's instruments and candles, forming and closed, until SIGTERM or Ctrl-C.

    The instruments come from the exchange's own market data: tick, lot, least order value, taker fee. Candles start where the
    topic ends, so that a feed that was interrupted fills its gap and publishes nothing twice.
    When the exchange is unreachable or limits requests, the feed backs off and retries.

        aquiline feed ccxt --exchange binance --symbol BTC/USDT --symbol ETH/USDT --interval 1m

    Needs `pip install 'aquiline[feeds]'`. Health and metrics are on the port of `http.port`.
    """
    named = _named(symbol, exchange)
    _checked_interval(interval)
    options = ccxt_options(option or [])
    live = FeedRequest(named, interval, history_bars, round(poll_seconds * 1_000))

    async def build(settings: Settings, clock: Clock, health: Health) -> Service:
        broker = connect(settings.bus, clock, settings.topics)
        source = Exchange(exchange, options, settings.run_mode, clock)
        return OnBus(broker, ExchangeFeed(live, source, broker, clock, health=health, pause=Backoff()))

    _serve(kafka_settings_on(config, bus), build)


@app.command("files")
def from_files(
    files: Annotated[list[Path], typer.Argument(help="CSV files in any layout of docs/feeds.md; other programs may append to them.")],
    *,
    follow: Annotated[
        bool, typer.Option("--follow", help="Run until SIGTERM or Ctrl-C; by default end once the present rows are published.")
    ] = False,
    interval: Annotated[str | None, typer.Option(help="Interval of the bars (`1m`, `1d`), for files without an interval column.")] = None,
    symbol: Annotated[str | None, typer.Option(help=SYMBOL_HELP)] = None,
    calendar: Annotated[str, typer.Option(help="`24x7`, or an exchange calendar such as `XNYS`.")] = ALWAYS_OPEN,
    price_increment: Annotated[
        str | None, typer.Option(help="The tick (`0.01`). With it, the symbols are published as instruments first.")
    ] = None,
    currency: Annotated[str, typer.Option(help="Currency of those instruments.")] = "USD",
    time_zone: Annotated[str | None, typer.Option(metavar="ZONE", help=TIME_ZONE_HELP)] = None,
    stamp: Annotated[Stamp, typer.Option(help=STAMP_HELP)] = Stamp.OPEN,
    extended: Annotated[bool, typer.Option("--extended", help=EXTENDED_HELP)] = False,
    bus: BusOption = None,
    config: ConfigOption = None,
) -> None:
    """Publish the candles of files that the topic does not have, and with `--follow` those that are appended later.

    A bar is published as forming until its end. A row that changes later is published as a correction.

        aquiline feed files --follow btc.csv --symbol BTC-USD.CBSE --interval 1m --price-increment 0.01
    """

    async def build(settings: Settings, clock: Clock, health: Health) -> Service:
        options = ReadOptions(
            run_mode=settings.run_mode,
            symbol=symbol,
            interval=interval,
            calendar=calendar,
            now_ms=clock.now_ms(),
            time_zone=time_zone,
            stamp=stamp.value,
            extended=extended,
        )
        broker = connect(settings.bus, clock, settings.topics)
        made = FileFeed(files, options, broker, clock, health, follow=follow, price_increment=price_increment, currency=currency)
        return OnBus(broker, made)

    _serve(kafka_settings_on(config, bus), build)


def _named(texts: list[str], exchange: str) -> dict[str, str]:
    named: dict[str, str] = {}
    for text in texts:
        name, equals, symbol = text.partition("=")
        try:
            named[name] = Symbols.of(symbol if equals else default_symbol(name, exchange)).symbol(None)
        except ValueError as error:
            raise SettingsError(str(error)) from error
    if len(set(named.values())) < len(texts):
        raise SettingsError(f"--symbol: {', '.join(texts)} name one symbol twice; give each its own, as NAME=SYMBOL")
    return named


def _checked_interval(interval: str) -> None:
    try:
        interval_ms(interval)
    except ValueError as error:
        raise SettingsError(f"--interval: {error}") from error


def _serve(settings: Settings, build: Build) -> None:
    logs.configure(settings.log, service="feed")
    try:
        asyncio.run(serve(settings, build))
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        code, sentences = explained
        for sentence in sentences:
            sys.stderr.write(f"aquiline feed: {sentence}\n")
        raise typer.Exit(code) from error
