"""Health: which conditions a service still waits for, whether it makes progress, and the pages that show both.

`/livez` is for restarting, `/readyz` for waiting, `/metrics` for Prometheus.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import orjson
from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from services.core.metrics import REGISTRY
from services.core.settings import HttpSettings, SettingsError

DEFAULT_STALL_S: Final = 60.0


class Health:
    """A service's readiness and liveness.

    Ready: every required condition is set. Alive: `progress` was called within `stall_after_s` seconds, or there is an excuse
    (the broker or the engine does not answer; paused, rebalancing, rebuilding), or it never was called yet: a service that
    still waits for its broker gains nothing from a restart. A dead event loop answers no probe at all.
    """

    def __init__(self, *, stall_after_s: float = DEFAULT_STALL_S, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start without conditions; `monotonic` is a clock in seconds."""
        self._stall_after_s = stall_after_s
        self._monotonic = monotonic
        self._unmet: dict[str, str] = {}
        self._required: set[str] = set()
        self._excuses: set[str] = set()
        self._progress_s: float | None = None

    def require(self, *conditions: str) -> None:
        """Make readiness depend on each of `conditions`; new ones start as not met."""
        for condition in conditions:
            if condition not in self._required:
                self._required.add(condition)
                self._unmet[condition] = "not yet"

    def set(self, condition: str) -> None:
        """Mark `condition` as met."""
        self._required.add(condition)
        self._unmet.pop(condition, None)

    def clear(self, condition: str, why: str = "no longer") -> None:
        """Mark `condition` as not met, with the reason."""
        self._required.add(condition)
        self._unmet[condition] = why

    @property
    def ready(self) -> bool:
        """Return whether every condition is met."""
        return not self._unmet

    @property
    def unmet(self) -> dict[str, str]:
        """Return the conditions that are not met, each with why."""
        return dict(self._unmet)

    def progress(self) -> None:
        """Note progress: the service finished work, or polled and found none."""
        self._progress_s = self._monotonic()

    def excuse(self, reason: str) -> None:
        """Expect no progress until `end_excuse(reason)`."""
        self._excuses.add(reason)

    def end_excuse(self, reason: str) -> None:
        """Expect progress again, from now on, once no other excuse stands."""
        if reason in self._excuses:
            self._excuses.discard(reason)
            if self._progress_s is not None:
                self._progress_s = self._monotonic()

    @property
    def excuses(self) -> list[str]:
        """Return why no progress is expected, sorted."""
        return sorted(self._excuses)

    @property
    def stalled_s(self) -> float | None:
        """Return the seconds since the last progress when they are too many, else None."""
        if self._excuses or self._progress_s is None:
            return None
        silent_s = self._monotonic() - self._progress_s
        return silent_s if silent_s > self._stall_after_s else None


class HealthServer:
    """Serves `/livez`, `/readyz` and `/metrics` on the event loop whose health it tells."""

    def __init__(self, settings: HttpSettings, health: Health) -> None:
        """Make a server; it listens once started."""
        self._settings = settings
        self._health = health
        app = web.Application()
        app.add_routes([web.get("/livez", self._livez), web.get("/readyz", self._readyz), web.get("/metrics", self._metrics)])
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Listen; raise SettingsError when the address cannot be listened on."""
        await self._runner.setup()
        host, port = self._settings.host, self._settings.port
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise SettingsError(
                f"http.host {host!r} with http.port {port} cannot be listened on ({error.strerror}); "
                "end what listens there, or choose another port with http.port or AQUILINE_HTTP__PORT (0 for any free one)"
            ) from error

    @property
    def bound_port(self) -> int:
        """Return the port listened on; raise RuntimeError when not started."""
        if not self._runner.addresses:
            raise RuntimeError("the health server does not listen; start it first")
        port: int = self._runner.addresses[0][1]
        return port

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _livez(self, _request: web.Request) -> web.Response:
        stalled_s = self._health.stalled_s
        reasons = [] if stalled_s is None else [f"no progress for {stalled_s:.0f} s"]
        return _verdict(ok=not reasons, alive=not reasons, reasons=reasons, excuses=self._health.excuses)

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _verdict(ok=self._health.ready, ready=self._health.ready, unmet=self._health.unmet)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _verdict(*, ok: bool, **said: object) -> web.Response:
    return web.Response(body=orjson.dumps(said), status=200 if ok else 503, content_type="application/json")
