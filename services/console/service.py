"""The console as a service: follows the topics and the workers' metrics, and serves page and API until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import Final

import structlog
import uvicorn

from schemas import Topic, topic_name
from services.console.access import Access
from services.console.api import make_app
from services.console.events import EventLog
from services.console.follower import TopicFollower
from services.console.recent import Recent
from services.console.views import Views, compared_mode
from services.console.worker_metrics import Pages, WorkerMetrics, pages_of
from services.core.bus import Bus, BusError, Record
from services.core.clock import Clock
from services.core.health import Health
from services.core.instruments import Instruments
from services.core.settings import ConsoleSettings, Settings, SettingsError
from services.fusion.decide.control import ControlTable

TOPICS: Final = (
    Topic.SIGNAL_AUDIT,
    Topic.STRATEGY_SIGNALS,
    Topic.SIGNAL_OUTCOMES,
    Topic.MARKET_FEATURES,
    Topic.VISION_FEATURES,
)
_CLIENT: Final = "aquiline-console"
_TICK_S: Final = 1.0
_RETRY_S: Final = 2.0
_CLOSE_S: Final = 3

_log = structlog.get_logger()


class _Server(uvicorn.Server):
    """A server that leaves the process' signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ConsoleService:
    """The console over a bus. `configurations` are the settings of the workers whose prompts are shown, its own first."""

    def __init__(self, bus: Bus, configurations: Sequence[Settings], clock: Clock, health: Health, pages: Pages | None = None) -> None:
        """`pages` reads the workers' metrics; those at `console.worker_urls` when not given. Raise SettingsError for a port in use."""
        settings = configurations[0]
        console = settings.console
        self._health = health
        health.require("listening", "broker")
        modes = [settings.run_mode, *([mode] if (mode := compared_mode(settings.run_mode)) else [])]
        names = [topic_name(topic, settings.run_mode) for topic in TOPICS]
        names += [topic_name(Topic.SIGNAL_OUTCOMES, mode) for mode in modes[1:]]
        self._events = EventLog()
        self._recent = Recent(settings.run_mode, console.max_memory_bytes, settings.bus.max_record_bytes, self._events)
        self._follower = TopicFollower(bus, clock, names, console.lookback_minutes * 60_000, self._take)
        self._control = ControlTable(bus, clock, settings.run_mode, _CLIENT)
        self._instruments = Instruments(bus, clock, settings.run_mode, _CLIENT)
        self._metrics = WorkerMetrics(pages or pages_of(console.worker_urls))
        access = Access(console)
        self._views = Views(
            bus,
            clock,
            configurations,
            events=self._events,
            recent=self._recent,
            follower=self._follower,
            control=self._control,
            instruments=self._instruments,
            metrics=self._metrics,
            token_set=access.token_set,
        )
        self._socket = _listen(console)
        self._server = _Server(
            uvicorn.Config(
                make_app(self._views, access),
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=_CLOSE_S,
            )
        )
        self.url = f"http://{_shown(console.host)}:{self._socket.getsockname()[1]}"

    async def run(self) -> None:
        """Serve until `stop` is called."""
        _log.info("console_listening", url=self.url)
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._follower.run(), name="topics"),
                tasks.create_task(self._follow(self._control), name="control"),
                tasks.create_task(self._follow(self._instruments), name="instruments"),
                tasks.create_task(self._metrics.run(), name="metrics"),
                tasks.create_task(self._tick(), name="tick"),
            ]
            self._health.set("listening")
            try:
                await self._server.serve(sockets=[self._socket])
            finally:
                self._socket.close()
                for task in background:
                    task.cancel()
        await self._control.close()
        await self._instruments.close()

    def stop(self) -> None:
        """End every client's stream and stop listening."""
        self._events.close()
        self._server.should_exit = True

    def _take(self, records: Sequence[Record]) -> None:
        for record in records:
            self._recent.take(record)
        self._events.wake()

    async def _follow(self, table: ControlTable | Instruments) -> None:
        """Follow a table from when its topic exists."""
        while True:
            try:
                await table.start()
                break
            except BusError as error:
                _log.warning("table_unreadable", error=str(error))
                await table.close()
                await asyncio.sleep(_RETRY_S)
        await table.follow()

    async def _tick(self) -> None:
        while True:
            self._views.tick()
            self._events.wake()
            self._health.progress()
            if self._follower.connected:
                self._health.set("broker")
            else:
                self._health.clear("broker", self._follower.problem or "not connected")
            await asyncio.sleep(_TICK_S)


def _listen(settings: ConsoleSettings) -> socket.socket:
    """Return a socket on the console's address; raise SettingsError when it cannot be listened on."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"console.host {settings.host!r} with console.port {settings.port} cannot be listened on ({error.strerror}); "
            "end what listens there, or choose another port with console.port or AQUILINE_CONSOLE__PORT (0 for any free one)"
        ) from error
    listening.setblocking(False)
    return listening


def _shown(host: str) -> str:
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - only named, not listened on
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
