"""Real servers for a benchmark's time: Kafka with the topics made, Redis, and the simulator, each in a temporary folder."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.feed import MODE
from deploy.local import LocalKafka
from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from services.core.topic_admin import ensure_topics


@contextlib.asynccontextmanager
async def kafka(partitions: int) -> AsyncIterator[LocalKafka]:
    """Run a broker with all topics in `partitions` partitions."""
    with tempfile.TemporaryDirectory(prefix="aquiline-benchmark-") as folder:
        server = LocalKafka(Path(folder))
        server.start()
        try:
            bus = KafkaBus(BusSettings(url=server.url), SystemClock())
            admin = await bus.admin()
            await ensure_topics(admin, MODE, partitions)
            await admin.close()
            yield server
        finally:
            server.stop()


@contextlib.asynccontextmanager
async def module(name: str, *arguments: str) -> AsyncIterator[str]:
    """Run `python -m name` in a process of its own and yield the address at the end of the first line that it prints."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", name, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        yield line.decode().split()[-1]
    finally:
        process.terminate()
        await process.wait()
