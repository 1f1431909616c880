"""`aquiline market samples`: the five shipped stocks as a market, for a stack without a feed."""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from schemas import Candle, RunMode, Topic, topic_name
from services.cli.options import DAY, ConfigOption, epoch_ms
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.settings import Settings, SettingsError, load
from services.feeds.paced_publishing import AsFastAsPossible, BarsPerSecond
from services.feeds.play_samples import Part, play_on, wait_until_read

_REPORT_EVERY: Final = 500

_err = Console(stderr=True)


def samples(
    *,
    history_only: Annotated[
        bool, typer.Option("--history-only", help="Publish the bars before the start, and exit once market and vision have read them.")
    ] = False,
    stay: Annotated[
        bool, typer.Option("--stay", help="Wait to be stopped after the last bar, for a container that is restarted whenever it ends.")
    ] = False,
    ready_file: Annotated[
        Path | None, typer.Option(help="Created once the first bar is published, or every bar was published before.")
    ] = None,
    bars_per_second: Annotated[float, typer.Option(min=0.001, help="Sessions a second after the start.")] = 1.5,
    start: Annotated[
        dt.datetime, typer.Option(formats=DAY, metavar="DATE", help="First day published at that pace.", show_default="2006-01-01")
    ] = dt.datetime(2006, 1, 1),  # noqa: DTZ001 - a date
    history_from: Annotated[
        dt.datetime, typer.Option(formats=DAY, metavar="DATE", help="First day of the history.", show_default="2004-09-01")
    ] = dt.datetime(2004, 9, 1),  # noqa: DTZ001 - a date
    config: ConfigOption = None,
) -> None:
    """Publish real daily bars of five stocks (AAPL, FB, GOOG, IBM, MSFT, until March 2013) on the topic `candles`.

    The instruments, the splits and the bars before the start are published as fast as the broker takes them; then the bars follow,
    one session at a time. Bars that the topic already holds are not published again.
    """
    settings = load(config)
    if settings.run_mode is RunMode.LIVE:
        raise SettingsError("run_mode is 'live', and these bars are years old; choose demo, replay or shadow")
    if not settings.bus.url.startswith("kafka:"):
        raise SettingsError(f"bus.url is {settings.bus.url!r}, which no other process can read; name a kafka:// bus")
    begin_ms, start_ms = epoch_ms(history_from), epoch_ms(start)
    parts = [Part(begin_ms, start_ms, AsFastAsPossible())]
    if not history_only:
        parts.append(Part(start_ms, None, BarsPerSecond(bars_per_second)))
    asyncio.run(_play(settings, parts, wait=history_only, stay=stay, ready_file=ready_file))


async def _play(settings: Settings, parts: Sequence[Part], *, wait: bool, stay: bool, ready_file: Path | None) -> None:
    """Play the parts; at SIGTERM stop with everything sent acknowledged, so that the next run continues there."""
    clock = SystemClock()
    bus = connect(settings.bus, clock, settings.topics)
    stopped = asyncio.Event()

    def sent(count: int, candle: Candle) -> None:
        if count == 1:
            _ready(ready_file)
        _report(count, candle)

    playing = asyncio.ensure_future(play_on(bus, clock, settings.run_mode, parts, sent))

    def stop() -> None:
        stopped.set()
        playing.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        count = await playing
        _ready(ready_file)
        _say(f"published {count} candles on {topic_name(Topic.CANDLES, settings.run_mode)}")
        if wait:
            await wait_until_read(bus, settings, lambda group: _say(f"waiting until group {group} has read them"))
        if stay:
            _say("every bar is published; waiting to be stopped")
            await stopped.wait()
    except asyncio.CancelledError:
        _say("stopped; the next run continues from here")
    finally:
        await bus.close()


def _ready(file: Path | None) -> None:
    if file is not None:
        file.touch()


def _report(count: int, candle: Candle) -> None:
    if count % _REPORT_EVERY == 0:
        _say(f"published {count} candles, up to {dt.datetime.fromtimestamp(candle.ts_close_ms / 1000, tz=dt.UTC).date()}")


def _say(text: str) -> None:
    _err.print(text, highlight=False)
