"""`python -m services.market`: the market service as a process."""

import sys

from services.core.bus.connect import connect
from services.core.clock import Clock
from services.core.health import Health
from services.core.lifecycle import OnBus, Service, run_service
from services.core.settings import Settings
from services.market.service import MarketService


async def build(settings: Settings, clock: Clock, health: Health) -> Service:
    """Return the service on the bus of the settings."""
    bus = connect(settings.bus, clock, settings.topics)
    return OnBus(bus, MarketService(bus, settings, clock, health))


if __name__ == "__main__":
    sys.exit(run_service("market", build))
