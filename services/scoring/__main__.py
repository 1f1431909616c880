"""`python -m services.scoring`: the scorer as a process of its own."""

import sys

from services.core.bus.connect import connect
from services.core.clock import Clock
from services.core.health import Health
from services.core.lifecycle import OnBus, Service, run_service
from services.core.settings import Settings, SettingsError


async def build(settings: Settings, clock: Clock, health: Health) -> Service:
    """Return the service with the bus of the settings; raise SettingsError when Faust is not installed."""
    try:
        from services.scoring.service import ScoringService  # noqa: PLC0415 - Faust is an extra
    except ModuleNotFoundError as error:
        raise SettingsError("the scorer needs Faust; install it with: pip install 'aquiline[scoring]'") from error
    bus = connect(settings.bus, clock, settings.topics)
    return OnBus(bus, ScoringService(bus, settings, clock, health))


if __name__ == "__main__":
    sys.exit(run_service("scoring", build))
