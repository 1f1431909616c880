"""The demo's options, and what they make of the settings."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from schemas import Candle, RunMode, interval_ms
from services.cli.demo.engine import EngineStartError, SimulatorProcess
from services.cli.demo.run import Run, show
from services.cli.demo.screen import LogLines, make_console
from services.cli.demo.script import Wanted, write_script
from services.core import logs
from services.core.settings import Settings, SettingsError, load
from services.market.samples import INTERVAL, SYMBOLS, load_stocks

app = typer.Typer(rich_markup_mode="markdown", help="Show Aquiline at work, on real market data and a simulated engine.")

_HISTORY_FROM: Final = dt.datetime(2009, 1, 1)  # noqa: DTZ001 - a calendar day
_DAY: Final = "%Y-%m-%d"


class Vision(StrEnum):
    """Where vision features come from."""

    RECORDED = "recorded"
    LIVE = "live"
    LATE = "late"
    NONE = "none"


@app.command()
def demo(
    *,
    symbols: Annotated[str, typer.Option(help="Which of AAPL, FB, GOOG, IBM, MSFT, separated by commas.")] = "AAPL,FB,GOOG,IBM,MSFT",
    bars: Annotated[int, typer.Option(min=1, help="Bars a symbol in the paced part.")] = 80,
    pace: Annotated[float, typer.Option(min=0.01, help="Bars a second a symbol.")] = 1.5,
    start: Annotated[
        dt.datetime | None, typer.Option(formats=[_DAY], help="First day of the paced part; so late that all ends with the data.")
    ] = None,
    history_from: Annotated[
        dt.datetime, typer.Option(formats=[_DAY], help="Bars before the start are loaded from here on; the data begin 2000-03-01.")
    ] = _HISTORY_FROM,
    burst: Annotated[bool, typer.Option(help="Ten seconds at ten times the pace.")] = True,
    outage: Annotated[bool, typer.Option(help="Three seconds without an engine, and a recovery.")] = True,
    vision: Annotated[
        Vision,
        typer.Option(help="Vision features: played from a file, made by the chart network (needs torch), `late` beyond the wait, or none."),
    ] = Vision.RECORDED,
    intervals: Annotated[
        str, typer.Option(help="Intervals in the prompt, fastest first; it must be 1d, others are built from it.")
    ] = "1d,1w",
    window: Annotated[int, typer.Option(min=1, help="W: bars in a prompt at the start of an epoch.")] = 256,
    epoch: Annotated[int, typer.Option(min=1, help="K: slots from one epoch to the next.")] = 64,
    permits: Annotated[int, typer.Option(min=1, help="Calls to the engine at once.")] = 5,
    min_gap_bars: Annotated[int, typer.Option(min=1, help="Ask at most every n-th bar (in event time: a weekend counts as two bars).")] = 1,
    bus: Annotated[str, typer.Option(metavar="URL", help="`kafka://host:port`, or `memory://` in this process.")] = "memory://",
    redis: Annotated[
        str, typer.Option(metavar="URL", help="`redis://host:port/db`, `memory://` in this process, or `none://`.")
    ] = "memory://",
    engine: Annotated[
        str | None, typer.Option(metavar="URL", help="An engine that runs already (`http://host:port`); the outage is left out then.")
    ] = None,
    time_scale: Annotated[
        float, typer.Option(min=0, help="The simulator's time: 2 is half as fast as the GPU that was measured, 0 waits for nothing.")
    ] = 1.0,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as `fusion.trigger_on_vision=true`; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the simulator's draws and of the charts' delays.")] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Write every log line, not only warnings.")] = False,
) -> None:
    """Show Aquiline at work: five real stocks, played through the same services that run against Kafka and a GPU.

    It needs no broker, no Redis and no GPU: the bus lives in this process, and a **simulator** stands in for the engine, with a real
    prefix cache and the times of a GPU that was measured. Its answers come from fixed rules. About 75 seconds, then it ends by itself
    and leaves `demo-report.json`, `demo-signals.jsonl` and `demo-audit.jsonl` in the working directory.

    **Too slow an engine, and nothing else:**

        aquiline demo --permits 1 --no-burst --no-outage

    **Through real parts** (`make up-local` starts them and prints their addresses):

        aquiline demo --bus kafka://127.0.0.1:9092 --redis redis://127.0.0.1:6379/0 --engine http://127.0.0.1:30000

    **Another trigger policy:** ask on moves of half an ATR and on charts too, at most every second bar:

        aquiline demo --set fusion.trigger_on_vision=true --set fusion.trigger_on_move_atr=0.5 --min-gap-bars 2
    """
    stocks = _stocks(symbols)
    wanted = Wanted(bars, pace, burst, outage and engine is None, start.date() if start else None, history_from.date())
    script = write_script(stocks, wanted)
    settings = _settings(
        {
            "bus": {"url": bus},
            "redis": {"url": redis},
            "engine": {"urls": [engine]} if engine else {},
            "fusion": _fusion(intervals.split(","), window=window, epoch=epoch, permits=permits, min_gap_bars=min_gap_bars, vision=vision),
            "market": {"aggregate": {INTERVAL: intervals.split(",")[1:]}},
        },
        setting or [],
        verbose=verbose,
    )
    console = make_console()
    logs.configure(settings.log, service="demo", stream=LogLines(console) if console.is_terminal else None)
    if engine is not None and outage:
        console.print("The outage is left out: the engine is not the demo's own to kill.", style="dim", soft_wrap=True)
    simulator = None if engine is not None or settings.engine.kind == "rules" else SimulatorProcess(seed=seed, time_scale=time_scale)
    try:
        code = asyncio.run(show(Run(settings, script, simulator, vision.value, seed, Path.cwd()), console))
    except EngineStartError as error:
        typer.echo(f"aquiline demo: {error}", err=True)
        raise typer.Exit(1) from error
    raise typer.Exit(code)


def _stocks(symbols: str) -> dict[str, list[Candle]]:
    names = [name.strip().upper() for name in symbols.split(",") if name.strip()]
    if not names or (unknown := sorted(set(names) - SYMBOLS.keys())):
        raise SettingsError(f"--symbols {symbols!r}: {', '.join(unknown) if names else 'nothing'} is none of {', '.join(SYMBOLS)}")
    every = load_stocks(RunMode.DEMO)
    return {SYMBOLS[name]: every[SYMBOLS[name]] for name in dict.fromkeys(names)}


def _fusion(intervals: list[str], *, window: int, epoch: int, permits: int, min_gap_bars: int, vision: Vision) -> dict[str, Any]:
    if intervals[0] != INTERVAL:
        raise SettingsError(f"--intervals {','.join(intervals)!r}: the bars are daily, so the first must be {INTERVAL}")
    return {
        "intervals": intervals,
        "window_bars": window,
        "epoch_slots": epoch,
        "permits": permits,
        "min_bars": min(20, window),
        "min_gap_ms": 0 if min_gap_bars == 1 else min_gap_bars * interval_ms(INTERVAL),
        "vision_wait_ms": 0 if vision is Vision.NONE else 150,
        # Days pass in 667 ms here: what is good for a day would never be too old.
        "entry_validity_ms": {INTERVAL: 3_000},
        "max_staleness_ms": 2_000,
        "rate_limit_per_min": 6_000,
    }


def _settings(given: dict[str, dict[str, Any]], assignments: list[str], *, verbose: bool) -> Settings:
    """Return the demo's settings: what is assigned goes before what the demo says, and that before files and variables."""
    run_id = uuid.uuid4().hex[:8]
    tables: dict[str, dict[str, Any]] = {
        **given,
        "market": {"group": f"aquiline-demo-{run_id}-market", **given["market"]},
        "vision": {"group": f"aquiline-demo-{run_id}-vision", "intervals": [INTERVAL]},
        # A new group and a new log each time: offsets go on where the last run ended, and ids must not.
        "fusion": {"group": f"aquiline-demo-{run_id}-fusion", "log_id": f"demo-{run_id}", **given["fusion"]},
        "log": {"level": "info" if verbose else "warning"},
    }
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (equals and dot and name):
            raise SettingsError(f"--set {assignment!r}: expected section.key=value, such as fusion.permits=3")
        tables.setdefault(section, {})[name] = _value(value)
    return load(None, {"run_mode": RunMode.DEMO.value, **tables})


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
