"""Runs a service as a process: settings, logs, health pages, signals, and one clear sentence when it cannot go on.

Each service's `__main__` calls `run_service`; nothing else in a service knows of processes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import structlog

from services.core import logs, memory_tuning
from services.core.bus.port import Bus, BusError
from services.core.clock import Clock, SystemClock
from services.core.errors import ServiceError
from services.core.health import Health, HealthServer
from services.core.settings import Settings, SettingsError, load
from services.strategy.folder import StrategyError
from services.strategy.hooks import HookError

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_MISCONFIGURED: Final = 2

_log = structlog.get_logger()


class Service(Protocol):
    """Something that runs until it is stopped."""

    async def run(self) -> None:
        """Work until `stop` is called and what was begun is drained, or until there is nothing more to do."""
        ...

    def stop(self) -> None:
        """Have `run` drain and return. Called from the event loop, at most once."""
        ...


class OnBus:
    """A service with the bus that it was given, which is closed when it ends."""

    def __init__(self, bus: Bus, service: Service) -> None:
        """Run `service`, which uses `bus`."""
        self._bus = bus
        self._service = service

    async def run(self) -> None:
        """Run the service, then close the bus."""
        try:
            await self._service.run()
        finally:
            await self._bus.close()

    def stop(self) -> None:
        """Have the service drain."""
        self._service.stop()


Build = Callable[[Settings, Clock, Health], Awaitable[Service]]
"""Makes a service ready to run; it adds to the health what the service needs to be ready (`Health.require`)."""


def run_service(name: str, build: Build, argv: Sequence[str] | None = None) -> int:
    """Run the service `name` with the arguments `argv` (the process' own when None) and return the process' exit code.

    0: it ended by itself, or drained after SIGTERM or SIGINT (a second one ends the process at once, with 128 + its number).
    1: it failed. 2: the settings cannot be used. Both are told in one sentence on standard error.
    """
    parser = argparse.ArgumentParser(prog=f"python -m services.{name}")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings file in TOML; the one that AQUILINE_CONFIG names when not given"
    )
    arguments = parser.parse_args(argv)
    try:
        settings = load(arguments.config)
        logs.configure(settings.log, service=name)
        asyncio.run(serve(settings, build))
    except Exception as error:  # noqa: BLE001 - the process ends here, and the log gets the whole story
        explained = explain(error)
        if explained is None:
            _log.exception("service_failed")
            return EXIT_FAILED
        code, sentences = explained
        for sentence in sentences:
            sys.stderr.write(f"aquiline {name}: {sentence}\n")
        return code
    return EXIT_DONE


async def serve(settings: Settings, build: Build) -> None:
    """Build a service and run it with its health pages, until it ends or SIGTERM or SIGINT has it drain.

    The first signal drains; one that comes before the service is built ends the building; the second ends the process at once,
    since the next owner repeats work that is not committed.
    """
    health = Health()
    health.require("running")
    server = HealthServer(settings.http, health)
    await server.start()
    loop = asyncio.get_running_loop()
    life = _Life(health, loop.create_task(_build(build, settings, health), name="build"))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, life.on_signal, number)
    try:
        _log.info("starting", http_port=server.bound_port, run_mode=settings.run_mode.value, bus=settings.bus.url)
        await life.run()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        await server.close()
    _log.info("stopped")


async def _build(build: Build, settings: Settings, health: Health) -> Service:
    return await build(settings, SystemClock(), health)


class _Life:
    def __init__(self, health: Health, building: asyncio.Task[Service]) -> None:
        self._health = health
        self._building = building
        self._service: Service | None = None
        self._stopping = False

    async def run(self) -> None:
        try:
            self._service = await self._building
        except asyncio.CancelledError:
            if self._stopping:
                return
            raise
        memory_tuning.freeze()
        self._health.set("running")
        trimming = asyncio.create_task(memory_tuning.keep_heap_trimmed(), name="trim-heap")
        try:
            await self._service.run()
        finally:
            trimming.cancel()

    def on_signal(self, number: signal.Signals) -> None:
        if self._stopping:
            _log.warning("ending_at_once", signal=number.name)
            os._exit(128 + number)
        self._stopping = True
        _log.info("draining", signal=number.name)
        self._health.clear("running", "draining")
        if self._service is None:
            self._building.cancel()
        else:
            self._service.stop()


def explain(error: Exception) -> tuple[int, list[str]] | None:
    """Return a process' exit code and the message for its user, None for an unexpected error.

    A group is explained when all that it holds is: what ends one task of a service often ends several.
    """
    leaves = _leaves(error)
    if not all(isinstance(leaf, SettingsError | StrategyError | BusError | ServiceError | HookError) for leaf in leaves):
        return None
    code = EXIT_MISCONFIGURED if any(isinstance(leaf, SettingsError | StrategyError) for leaf in leaves) else EXIT_FAILED
    return code, list(dict.fromkeys(map(str, leaves)))


def _leaves(error: Exception) -> list[Exception]:
    if isinstance(error, ExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
