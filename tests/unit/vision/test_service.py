"""The vision service on the in-process bus."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.core.bus.memory import MemoryBus
from services.core.clock import SystemClock
from tests.unit.vision.service_spec import Desk, VisionServiceSpec


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    bus = MemoryBus(SystemClock())
    desk = Desk(bus, "vision")
    await desk.set_up()
    yield desk
    await bus.close()


class TestInProcess(VisionServiceSpec):
    """The common promises."""
