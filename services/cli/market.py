"""`aquiline market`: market data from files onto the bus."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from schemas import Candle, Instrument, Topic, topic_name
from services.cli.candle_file_options import EXTENDED_HELP, STAMP_HELP, SYMBOL_HELP, TIME_ZONE_HELP, Stamp
from services.cli.market_samples import samples
from services.cli.options import BusOption, ConfigOption, kafka_settings_on
from services.core.bus import BusError, Producer
from services.core.bus.connect import connect
from services.core.calendar import ALWAYS_OPEN, CalendarError
from services.core.clock import SystemClock
from services.core.settings import Settings, SettingsError
from services.feeds.file_instruments import increments, instruments_for
from services.feeds.files import FileError, Reading, ReadOptions, merged, read_all
from services.feeds.paced_publishing import AsFastAsPossible, BarsPerSecond, Pace, RealTime, in_event_time, publish_at_pace

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Market data from files onto the bus.")

app.command("samples")(samples)

_err = Console(stderr=True)


@app.callback()
def market() -> None:
    """Publish candles from files and from the samples."""


@app.command("replay", hidden=True, deprecated=True)  # its name until `aquiline replay` came
@app.command("publish")
def publish_files(
    files: Annotated[
        list[Path], typer.Argument(help="CSV or Parquet, plain or compressed, in any layout of docs/feeds.md; several are merged by time.")
    ],
    *,
    bars_per_second: Annotated[float | None, typer.Option(min=0.001, help="Publish this many bars a second of each symbol.")] = None,
    speed: Annotated[float | None, typer.Option(min=0.001, help="Publish in real time, this many times as fast.")] = None,
    interval: Annotated[str | None, typer.Option(help="Interval of the bars (`1m`, `1d`), for files without an interval column.")] = None,
    symbol: Annotated[str | None, typer.Option(help=SYMBOL_HELP)] = None,
    calendar: Annotated[
        str, typer.Option(help="`24x7`, or an exchange calendar such as `XNYS`; it determines when bars end.")
    ] = ALWAYS_OPEN,
    price_increment: Annotated[
        str | None, typer.Option(help="The tick (`0.01`). With it, the symbols are published as instruments first.")
    ] = None,
    time_zone: Annotated[str | None, typer.Option(metavar="ZONE", help=TIME_ZONE_HELP)] = None,
    stamp: Annotated[Stamp, typer.Option(help=STAMP_HELP)] = Stamp.OPEN,
    extended: Annotated[bool, typer.Option("--extended", help=EXTENDED_HELP)] = False,
    currency: Annotated[str, typer.Option(help="Currency of those instruments.")] = "USD",
    bus: BusOption = None,
    config: ConfigOption = None,
) -> None:
    """Publish the candles of files on the topic `candles`, merged by the time at which they end.

    Without a pace they are published as fast as the broker takes them. The layout of each file is detected and printed: one that
    docs/feeds.md lists, or columns by name (`open high low close`, and the bar's open as `time`, `timestamp`, `datetime` or `date`;
    `volume`, `symbol`, `interval` and `revision` are optional).

    **A download of daily bars, five a second:**

        aquiline market publish AAPL.csv --symbol AAPL.XNAS --interval 1d --calendar XNYS --price-increment 0.01 --bars-per-second 5

    **A day of minutes, sixty times as fast as it was:**

        aquiline market publish btc.parquet --symbol BTC-USD.CBSE --interval 1m --speed 60

    If the prices are already adjusted for splits, publish the instrument yourself with `price_adjustment`.
    """
    try:
        pace = _pace(bars_per_second, speed)
        settings = kafka_settings_on(config, bus)
        how = ReadOptions(
            run_mode=settings.run_mode,
            symbol=symbol,
            interval=interval,
            calendar=calendar,
            now_ms=SystemClock().now_ms(),
            time_zone=time_zone,
            stamp=stamp.value,
            extended=extended,
        )
        readings = read_all(files, how)
        candles = in_event_time(merged(readings))
        instruments = [] if price_increment is None else _instruments(candles, price_increment, currency, calendar, settings)
        _show(readings, candles, instruments)
        count = asyncio.run(_publish(candles, instruments, settings, pace))
    except (FileError, CalendarError, SettingsError, BusError) as error:
        _err.print(f"aquiline market publish: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(2 if isinstance(error, SettingsError) else 1) from error
    _err.print(f"{count} candles published on {topic_name(Topic.CANDLES, settings.run_mode)}")


def _pace(bars_per_second: float | None, speed: float | None) -> Pace:
    if bars_per_second is not None and speed is not None:
        raise SettingsError("--bars-per-second and --speed are two paces; give one")
    if bars_per_second is not None:
        return BarsPerSecond(bars_per_second)
    return AsFastAsPossible() if speed is None else RealTime(speed)


def _instruments(candles: list[Candle], price_increment: str, currency: str, calendar: str, settings: Settings) -> list[Instrument]:
    try:
        return instruments_for(
            candles,
            run_mode=settings.run_mode,
            currency=currency,
            price_increment=price_increment,
            calendar=calendar,
            price_adjustment="none",
        )
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise SettingsError(f"{'.'.join(map(str, wrong['loc']))} = {wrong['input']!r}: {wrong['msg']}") from error
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _show(readings: list[Reading], candles: list[Candle], instruments: list[Instrument]) -> None:
    """Print what was read, and the price increments that were found."""
    for reading in readings:
        _err.print(str(reading), markup=False, highlight=False, soft_wrap=True)
    if not instruments:
        for symbol, increment in increments(candles).items():
            said = f"{symbol}: prices are on {increment}; --price-increment {increment} publishes it as an instrument first"
            _err.print(said, markup=False, highlight=False, soft_wrap=True)


async def _publish(candles: list[Candle], instruments: list[Instrument], settings: Settings, pace: Pace) -> int:
    clock = SystemClock()
    broker = connect(settings.bus, clock, settings.topics)
    try:
        producer = await broker.producer(client_id="aquiline-market-publish")
        try:
            await _publish_instruments(instruments, producer, settings)
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, console=_err) as progress:
                task = progress.add_task("candles", total=len(candles))
                return await publish_at_pace(
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
