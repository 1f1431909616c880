"""The compose stack and a Prometheus that scrapes it, shared by every test of this folder: starting them takes longer than an alert."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.local import LocalKafka
from services.core.bus import Producer
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from tests.conftest import start_or_skip
from tests.integration.alerts.faults import GpuFigures
from tests.integration.alerts.prometheus import LocalPrometheus
from tests.integration.compose.stack import Stack

_QUICK = {
    # The rules' limits are a sixtieth here, and so is what they are set against.
    "AQUILINE_ENGINE__PROBE_IDLE_MS": "200",
    "AQUILINE_ENGINE__PROBE_TIMEOUT_MS": "300",
}


@dataclass(frozen=True)
class Watch:
    """A stack under watch. `producer` writes to its broker, `gpu` is what a GPU would say of itself."""

    stack: Stack
    kafka: LocalKafka
    prometheus: LocalPrometheus
    producer: Producer
    gpu: GpuFigures

    async def fires(self, name: str, **labels: str) -> None:
        """Return once an alert fires."""
        await self.prometheus.fires(name, self.stack.tails, **labels)

    async def rests(self, *names: str) -> None:
        """Return once alerts do not fire: one that already does would show nothing of the fault that is about to come."""
        await self.prometheus.rests(*names, told=self.stack.tails)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def watch(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watch]:
    """Return the stack once everything in it runs, with Prometheus beside it."""
    folder: Path = tmp_path_factory.mktemp("alerts")
    with start_or_skip(LocalKafka(folder / "kafka")) as kafka:
        stack = Stack(folder / "stack", kafka, variables=_QUICK)
        try:
            async with GpuFigures().serving() as gpu:
                await stack.start()
                with start_or_skip(
                    LocalPrometheus(
                        folder / "prometheus",
                        {"scoring:9400": stack.addresses["market:9400"], **stack.addresses, "dcgm-exporter:9400": gpu.address},
                    )
                ) as prometheus:
                    bus = connect(stack.settings("fusion").bus, SystemClock())
                    producer = await bus.producer(client_id="alerts")
                    yield Watch(stack, kafka, prometheus, producer, gpu)
                    await producer.close()
                    await bus.close()
        finally:
            stack.close()
