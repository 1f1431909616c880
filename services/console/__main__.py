"""`python -m services.console`: the console as a process of its own."""

import sys

from services.core.bus.connect import connect
from services.core.clock import Clock
from services.core.health import Health
from services.core.lifecycle import OnBus, Service, run_service
from services.core.settings import Settings, SettingsError


async def build(settings: Settings, clock: Clock, health: Health) -> Service:
    """Return the service with the bus of the settings; raise SettingsError when it has no bus to read, or its packages are missing."""
    if settings.bus.url == "memory://":
        raise SettingsError("bus.url is memory://, which no other process can read; name the kafka:// bus")
    try:
        from services.console.service import ConsoleService  # noqa: PLC0415 - FastAPI is an extra
    except ModuleNotFoundError as error:
        raise SettingsError("the console needs FastAPI and uvicorn; install them with: pip install 'aquiline[console]'") from error
    bus = connect(settings.bus, clock, settings.topics)
    return OnBus(bus, ConsoleService(bus, [settings], clock, health))


if __name__ == "__main__":
    sys.exit(run_service("console", build))
