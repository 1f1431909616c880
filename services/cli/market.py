"""`aquiline market`: market data from files onto the bus."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from schemas import Candle, Instrument, Topic, topic_name
from services.cli.market_samples import samples
from services.core.bus import BusError, Producer
from services.core.bus.connect import connect
from services.core.calendar import ALWAYS_OPEN, CalendarError
from services.core.clock import SystemClock
from services.core.settings import Settings, SettingsError, load
from services.feeds.files import FileError, Layout, read_candles
from services.feeds.replay import AsFastAsPossible, BarsPerSecond, Pace, RealTime, in_event_time, replay

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Market data from files onto the bus.")

app.command("samples")(samples)

_err = Console(stderr=True)


@app.callback()
def market() -> None:
    """Market data from files onto the bus."""


@app.command("replay")
def replay_files(
    files: Annotated[list[Path], typer.Argument(help="`.csv`, `.csv.gz` or `.parquet`; several are merged by time.")],
    *,
    bars_per_second: Annotated[float | None, typer.Option(min=0.001, help="So many bars a symbol each second.")] = None,
    speed: Annotated[float | None, typer.Option(min=0.001, help="Real time, so many times as fast.")] = None,
    interval: Annotated[str | None, typer.Option(help="The bars' length (`1m`, `1d`), where no column says it.")] = None,
    symbol: Annotated[str | None, typer.Option(help="The symbol with its venue (`AAPL.XNAS`), where no column says it.")] = None,
    calendar: Annotated[str, typer.Option(help="`24x7`, or an exchange calendar such as `XNYS`: says when bars end.")] = ALWAYS_OPEN,
    price_increment: Annotated[
        str | None, typer.Option(help="The tick (`0.01`). With it, the symbols are published as instruments first.")
    ] = None,
    currency: Annotated[str, typer.Option(help="Of those instruments.")] = "USD",
    bus: Annotated[str | None, typer.Option(help="`kafka://host:port`, instead of the settings' `bus.url`.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file; else AQUILINE_CONFIG and AQUILINE_* variables.")] = None,
) -> None:
    """Publish the candles of files on the topic `candles`, merged by the time at which they end.

    Without a pace, as fast as the broker takes them. Columns are found by name: `open high low close`, and the bar's open as
    `time`, `timestamp`, `datetime` or `date` (or `ts_open_ms` and `ts_close_ms`); `volume`, `symbol`, `interval` and `revision`
    where there are any.

    **A download of daily bars, five a second:**

        aquiline market replay AAPL.csv --symbol AAPL.XNAS --interval 1d --calendar XNYS --price-increment 0.01 --bars-per-second 5

    **A day of minutes, sixty times as fast as it was:**

        aquiline market replay btc.parquet --symbol BTC-USD.CBSE --interval 1m --speed 60

    Prices already adjusted for splits are fine, but say so: publish the instrument yourself with `price_adjustment`.
    """
    try:
        pace = _pace(bars_per_second, speed)
        settings = _settings(config, bus)
        layout = Layout(settings.run_mode, symbol, interval, calendar)
        candles = in_event_time(candle for path in files for candle in read_candles(path, layout))
        instruments = [] if price_increment is None else _instruments(candles, price_increment, currency, calendar, settings)
        count = asyncio.run(_publish(candles, instruments, settings, pace))
    except (FileError, CalendarError, SettingsError, BusError) as error:
        _err.print(f"aquiline market replay: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(2 if isinstance(error, SettingsError) else 1) from error
    _err.print(f"{count} candles published on {topic_name(Topic.CANDLES, settings.run_mode)}")


def _settings(config: Path | None, bus: str | None) -> Settings:
    settings = load(config, {} if bus is None else {"bus": {"url": bus}})
    if settings.bus.url.startswith("memory:"):
        raise SettingsError("memory:// lives inside one process, so nobody would read what is replayed; name a kafka:// bus")
    return settings


def _pace(bars_per_second: float | None, speed: float | None) -> Pace:
    if bars_per_second is not None and speed is not None:
        raise SettingsError("--bars-per-second and --speed are two paces; give one")
    if bars_per_second is not None:
        return BarsPerSecond(bars_per_second)
    return AsFastAsPossible() if speed is None else RealTime(speed)


def _instruments(candles: list[Candle], price_increment: str, currency: str, calendar: str, settings: Settings) -> list[Instrument]:
    try:
        return [
            Instrument(
                schema_version=1,
                run_mode=settings.run_mode,
                symbol=symbol,
                currency=currency,
                price_increment=price_increment,
                calendar=calendar,
                price_adjustment="none",
            )
            for symbol in sorted({candle.symbol for candle in candles})
        ]
    except ValueError as error:
        raise SettingsError(f"--price-increment {price_increment!r} with --currency {currency!r}: {error}") from error


async def _publish(candles: list[Candle], instruments: list[Instrument], settings: Settings, pace: Pace) -> int:
    clock = SystemClock()
    broker = connect(settings.bus, clock)
    try:
        producer = await broker.producer(client_id="aquiline-market-replay")
        try:
            await _publish_instruments(instruments, producer, settings)
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, console=_err) as progress:
                task = progress.add_task("candles", total=len(candles))
                return await replay(
                    candles,
                    topic=topic_name(Topic.CANDLES, settings.run_mode),
                    producer=producer,
                    clock=clock,
                    pace=pace,
                    on_sent=lambda _: progress.advance(task),
                )
        finally:
            await producer.close()
    finally:
        await broker.close()


async def _publish_instruments(instruments: list[Instrument], producer: Producer, settings: Settings) -> None:
    topic = topic_name(Topic.INSTRUMENTS, settings.run_mode)
    for instrument in instruments:
        await (await producer.send(topic, key=instrument.symbol.encode(), value=instrument.encode()))
