"""`python -m services.vision`: the vision service as a process."""

import asyncio
import sys

from services.core.bus.connect import connect
from services.core.clock import Clock
from services.core.health import Health
from services.core.lifecycle import OnBus, Service, run_service
from services.core.settings import Settings, SettingsError
from services.vision.forecaster import ForecasterError
from services.vision.loading import load_forecaster
from services.vision.service import VisionService


async def build(settings: Settings, clock: Clock, health: Health) -> Service:
    """Return the service with the model and the bus of the settings; raise SettingsError when the model cannot be loaded."""
    vision = settings.vision
    try:
        model = await asyncio.to_thread(load_forecaster, vision.weights_file, device=vision.device)
    except ForecasterError as error:
        raise SettingsError(str(error)) from error
    bus = connect(settings.bus, clock, settings.topics)
    return OnBus(bus, VisionService(bus, settings, clock, model, health))


if __name__ == "__main__":
    sys.exit(run_service("vision", build))
