"""One run of the demo, from empty topics to the closing sums."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from rich.console import Console
from rich.text import Text

from schemas import AuditRecord, Candle, RunMode, Topic, VisionFeatures
from services.cli.demo.engine import SimulatorProcess
from services.cli.demo.play import Player
from services.cli.demo.report import AUDIT, REPORT, SIGNALS, Course, make_report, write_files
from services.cli.demo.screen import BANNER_STYLE, Screen, closing_table
from services.cli.demo.script import OUTAGE_S, Act, Phase, Script
from services.cli.demo.stage import Stage, staged
from services.cli.demo.sums import Sum, closing_sums
from services.cli.demo.tally import Tally
from services.cli.demo.watch import Watcher
from services.cli.demo.words import banner, day_of, title
from services.core.bus.connect import connect
from services.core.calendar import SessionCalendar
from services.core.clock import Clock, SystemClock
from services.core.settings import Settings
from services.fusion.prewarm import WarmCount
from services.fusion.service import connect_engine
from services.inference.engine import EngineError, EngineInfo
from services.market.samples import CALENDAR, load_instruments, load_splits
from services.vision.recorded import load_recorded

VisionWay = Literal["recorded", "live", "none", "late"]

EXIT_DONE: Final = 0
EXIT_OFF: Final = 1
_SIGNALLED: Final = 128
_DRAIN_S: Final = 20.0
_DRAW_S: Final = 0.25
_CHUNK: Final = 250
LATE_MS: Final = 200
"""By how much charts come after the wait is over, with `--vision late`."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be done. `simulator` is None when the engine is somebody else's."""

    settings: Settings
    script: Script
    simulator: SimulatorProcess | None
    vision: VisionWay
    seed: int
    folder: Path


class _InterruptedError(Exception):
    """Ctrl-C before the first bar was played."""


@dataclass(slots=True)
class _Interrupt:
    """Set by SIGINT or SIGTERM; the run then plays no more, drains and reports."""

    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    number: int = 0

    def on_signal(self, number: signal.Signals) -> None:
        self.number = number
        self.wanted.set()


@dataclass(slots=True)
class _Course:
    """What a run finds out on its way."""

    began_s: float = field(default_factory=time.monotonic)
    played_s: float = 0.0
    outage_s: float | None = None
    warm_paced: WarmCount = field(default_factory=WarmCount)
    inputs_before: int = 0


async def show(run: Run, console: Console) -> int:
    """Do the run, and return the exit code: 0, 1 when a sum is off, 128 + the signal's number when one interrupted it.

    Raises SettingsError, BusError or EngineStartError when it cannot be done.
    """
    interrupt = _Interrupt()
    with _answering(interrupt):
        if run.simulator is None:
            return await _perform(run, console, interrupt)
        try:
            await run.simulator.start()
            engine = run.settings.engine.model_copy(update={"urls": [run.simulator.url]})
            settings = run.settings.model_copy(update={"engine": engine})
            return await _perform(dataclasses.replace(run, settings=settings), console, interrupt)
        finally:
            await run.simulator.kill()


async def _perform(run: Run, console: Console, interrupt: _Interrupt) -> int:
    clock = SystemClock()
    info = await _engine_info(run.settings, clock)
    source, name = (info.source, info.name) if info else (None, ", ".join(run.settings.engine.urls))
    tally, course = Tally(run.script), _Course()
    with Screen(console, banner(source, name)) as shown:
        try:
            async with staged(connect(run.settings.bus, clock), run.settings, clock) as stage, _drawing(shown):
                await _unless(interrupt, _set_up(run, stage, shown, course))
                shown.tally, shown.warm = tally, lambda: stage.worker.prewarmer.count
                watcher = Watcher(stage.bus, run.settings, tally, lambda audit: _tell(shown, tally, audit))
                await watcher.start()
                async with _watching(watcher):
                    inputs = await _play(run, stage, shown, course, interrupt)
                    shown.begin("draining", "Every lane runs dry, everything is committed", 0)
                    await stage.stop()
                await watcher.finish()
        except _InterruptedError:
            shown.note("interrupted while setting up: nothing was played, nothing is written")
            return _SIGNALLED + interrupt.number
        shown.phase = "done"
    accounts, warm = stage.worker.accounts, stage.worker.prewarmer.count
    sums = closing_sums(accounts, tally, inputs)
    report = make_report(
        Course(
            settings=run.settings,
            bus=stage.bus.address,
            redis=run.settings.redis.url,
            engine=info,
            own_engine=run.simulator is not None,
            setup_s=course.played_s - course.began_s,
            duration_s=time.monotonic() - course.played_s,
            outage_s=course.outage_s,
            interrupted=interrupt.wanted.is_set(),
            warm_paced=course.warm_paced,
            warm=warm,
        ),
        accounts,
        tally,
        sums,
    )
    write_files(run.folder, report, watcher.signal_lines, watcher.audit_lines)
    _close(console, shown.banner, sums, run.settings)
    if not all(one.ok for one in sums):
        return EXIT_OFF
    return _SIGNALLED + interrupt.number if interrupt.wanted.is_set() else EXIT_DONE


async def _set_up(run: Run, stage: Stage, shown: Screen, course: _Course) -> None:
    history = run.script.history
    shown.begin("setting up", f"Setting up: {len(history)} bars of history are loaded without triggering", len(history))
    # exchange-calendars imports pandas, which takes seconds once.
    await asyncio.to_thread(SessionCalendar.of, CALENDAR)
    symbols = {candle.symbol for candle in history} | {candle.symbol for act in run.script.acts for _, candle in act.bars}
    await stage.prepare(
        [one for one in load_instruments(RunMode.DEMO) if one.symbol in symbols],
        [one for one in load_splits(RunMode.DEMO) if one.symbol in symbols],
    )
    await stage.start_market()
    if run.vision == "live":
        await stage.start_vision()
    for start in range(0, len(history), _CHUNK):
        await stage.publish(Topic.CANDLES, [(candle.symbol, candle) for candle in history[start : start + _CHUNK]])
        await stage.until(lambda: stage.market.counts.records > shown.done - _CHUNK)
        shown.done = stage.market.counts.records
    await stage.until(lambda: _folded(stage, len(history)))
    shown.done = len(history)
    while await stage.length(Topic.MARKET_FEATURES) < stage.market.counts.features:  # noqa: ASYNC110 - acknowledgements under way
        await asyncio.sleep(_DRAW_S)
    course.inputs_before = await _inputs(stage)
    shown.note("the worker rebuilds its books from the log and sends its prefixes ahead to the engine")
    await stage.start_worker()
    course.played_s = time.monotonic()
    shown.note(f"set up in {course.played_s - course.began_s:.1f} s")


async def _play(run: Run, stage: Stage, shown: Screen, course: _Course, interrupt: _Interrupt) -> int:
    """Play the acts and wait until all of it is decided; return how many records the worker was given."""
    late_ms = stage.settings.fusion.vision_wait_ms + LATE_MS if run.vision == "late" else 0
    player = Player(stage, _charts(run), late_ms=late_ms, seed=run.seed)

    def on_bar(candle: Candle) -> None:
        shown.done += 1
        shown.day_ms = candle.ts_close_ms

    for act in run.script.acts:
        if interrupt.wanted.is_set():
            break
        shown.begin(act.phase.value, title(act, stage.settings), len(act.bars))
        for note in _listings(run, act, stage.settings):
            shown.note(note)
        playing = stage.while_running(player.play(act, on_bar, interrupt.wanted))
        if act.phase is Phase.OUTAGE and run.simulator is not None:
            course.outage_s = await _outage(run.simulator, playing, shown)
        else:
            await playing
        if act.phase is Phase.PACED:
            course.warm_paced = dataclasses.replace(stage.worker.prewarmer.count)
    if interrupt.wanted.is_set():
        shown.note("interrupted: no more bars; what has begun is decided and reported")
    await player.finish()
    await stage.until(lambda: _folded(stage, len(run.script.history) + player.bars), _DRAIN_S)
    inputs = await _inputs(stage) - course.inputs_before
    await stage.until(lambda: _decided(stage, inputs), _DRAIN_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            await stage.while_running(stage.worker.prewarmer.idle())
    return inputs


async def _outage(simulator: SimulatorProcess, playing: Awaitable[None], shown: Screen) -> float:
    """Kill the engine, bring it back so that it has been away for the outage's length, and return how long it was."""
    ready_in_s = simulator.start_s
    began_s = time.monotonic()
    await simulator.kill()
    shown.note("the engine's process is killed; bars go on")
    async with asyncio.TaskGroup() as tasks:

        async def bring_back() -> float:
            await asyncio.sleep(max(0.0, OUTAGE_S - ready_in_s))
            await simulator.start()
            away_s = time.monotonic() - began_s
            shown.note(f"the engine answers again after {away_s:.1f} s, with an empty cache")
            return away_s

        back = tasks.create_task(bring_back(), name="bring the engine back")
        await playing
    return back.result()


def _folded(stage: Stage, candles: int) -> bool:
    """Return whether every producer has dealt with so many candles."""
    return stage.market.counts.records >= candles and (stage.vision is None or stage.vision.counts.records >= candles)


def _decided(stage: Stage, inputs: int) -> bool:
    accounts = stage.worker.accounts
    return accounts.records.total() >= inputs and accounts.outcomes.total() == accounts.triggers


async def _inputs(stage: Stage) -> int:
    return await stage.length(Topic.MARKET_FEATURES) + await stage.length(Topic.VISION_FEATURES)


def _charts(run: Run) -> Mapping[tuple[str, int], VisionFeatures]:
    return load_recorded() if run.vision in {"recorded", "late"} else {}


def _listings(run: Run, act: Act, settings: Settings) -> Iterator[str]:
    """Tell of symbols that have no bar before this act: their first ones are blocked, and why."""
    seen = {candle.symbol for candle in run.script.history}
    for earlier in run.script.acts[: run.script.acts.index(act)]:
        seen |= {candle.symbol for _, candle in earlier.bars}
    for _, candle in act.bars:
        if candle.symbol not in seen:
            seen.add(candle.symbol)
            yield (
                f"{candle.symbol} is listed on {day_of(candle.ts_close_ms)}, in this part: until it has {settings.fusion.min_bars} bars, "
                "its triggers end `blocked` (min_bars), for so few show nothing"
            )


def _tell(shown: Screen, tally: Tally, audit: AuditRecord) -> None:
    shown.ended(audit, tally.signals.get(audit.signal_id) if audit.signal_id is not None else None, tally.phase_of(audit))


async def _engine_info(settings: Settings, clock: Clock) -> EngineInfo | None:
    engine = connect_engine(settings.engine, clock)
    try:
        return await engine.info()
    except EngineError:
        return None  # the worker goes on without, and its outcomes say so
    finally:
        await engine.close()


def _close(console: Console, said: str, sums: list[Sum], settings: Settings) -> None:
    console.print(closing_table(sums))
    console.print(Text(f"Written: {REPORT}, {SIGNALS}, {AUDIT}"), soft_wrap=True)
    console.print(Text("Worth trying next:"))
    for command, why in _next_commands(settings):
        console.print(Text.assemble("  ", (command, "bold"), (f"   # {why}", "dim")), soft_wrap=True)
    console.print(Text(f" {said} ", BANNER_STYLE), soft_wrap=True)


def _next_commands(settings: Settings) -> list[tuple[str, str]]:
    real = "--bus kafka://127.0.0.1:9092 --redis redis://127.0.0.1:6379/0"
    embedded = settings.bus.url == "memory://"
    return [
        (f"make up-local && make demo ARGS='{real}'", "the same through a real Kafka and a real Redis")
        if embedded
        else ("make down-local", "end Kafka, Redis and the simulator"),
        ("make demo ARGS='--vision late'", "charts that come too late: signals say `stale`, and wait no longer than told"),
        ("make demo ARGS='--permits 1 --no-burst'", "an engine too slow for its bars: newer triggers replace older ones"),
    ]


@contextlib.contextmanager
def _answering(interrupt: _Interrupt) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, interrupt.on_signal, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _unless(interrupt: _Interrupt, work: Coroutine[None, None, None]) -> None:
    """Await `work`, or raise _InterruptedError when the run is interrupted before it is done."""
    task = asyncio.create_task(work)
    waiting = asyncio.create_task(interrupt.wanted.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _InterruptedError
        await task
    finally:
        for one in (task, waiting):
            one.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)


@contextlib.asynccontextmanager
async def _watching(watcher: Watcher) -> AsyncIterator[None]:
    task = asyncio.create_task(watcher.run(), name="watch")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def _drawing(shown: Screen) -> AsyncIterator[None]:
    async def draw() -> None:
        while True:
            shown.refresh()
            await asyncio.sleep(_DRAW_S)

    task = asyncio.create_task(draw(), name="draw")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
