"""The console on what the demo plays, in the demo's process: an in-process bus has no other readers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from prometheus_client import generate_latest
from pydantic import SecretStr

from services.console.service import ConsoleService
from services.core.bus import Bus
from services.core.clock import Clock
from services.core.health import Health
from services.core.metrics import REGISTRY
from services.core.settings import Settings


def make_console(bus: Bus, clock: Clock, health: Health, settings: Settings, configurations: list[Settings]) -> tuple[ConsoleService, str]:
    """Return a console and its address with the token of this run; raise SettingsError when its port is in use.

    The settings of each act's worker are added to `configurations` as the act begins: prompts are rebuilt with them.
    """
    token = settings.console.token or SecretStr(secrets.token_urlsafe(16))
    configurations.insert(0, settings.model_copy(update={"console": settings.console.model_copy(update={"token": token})}))
    service = ConsoleService(bus, configurations, clock, health, pages=_own_metrics)
    return service, f"{service.url}/#token={token.get_secret_value()}"


async def _own_metrics() -> Sequence[str]:
    return [generate_latest(REGISTRY).decode()]
