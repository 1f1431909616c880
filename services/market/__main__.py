"""`python -m services.market`: the producer of market features as a process of its own."""

import sys

from services.core.bus.connect import connect
from services.core.clock import Clock
from services.core.health import Health
from services.core.lifecycle import Service, run_service
from services.core.settings import Settings
from services.market.service import MarketService


class _Process:
    """The service with the bus it was given, which it closes."""

    def __init__(self, settings: Settings, clock: Clock, health: Health) -> None:
        self._bus = connect(settings.bus, clock)
        self._service = MarketService(self._bus, settings, clock, health)

    async def run(self) -> None:
        try:
            await self._service.run()
        finally:
            await self._bus.close()

    def stop(self) -> None:
        self._service.stop()


async def build(settings: Settings, clock: Clock, health: Health) -> Service:
    """Return the service on the bus of the settings."""
    return _Process(settings, clock, health)


if __name__ == "__main__":
    sys.exit(run_service("market", build))
