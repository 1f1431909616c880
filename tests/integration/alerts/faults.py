"""Faults, each made for real, and what stands in for the one that cannot be: a GPU's own figures."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas import Control, HaltState, RunMode, Topic, topic_name
from services.core.bus import Producer
from services.core.clock import SystemClock
from services.core.topic_admin import topic_config
from tests.integration.compose.stack import REPOSITORY, Stack
from tests.integration.fusion.waiting import until

MODE: Final = RunMode.DEMO
CALIBRATION: Final = REPOSITORY / "services" / "inference" / "data" / "calibration-h100.json"

_SLOW_CLOCK: Final = """
import runpy, sys, time
told = time.time_ns
time.time_ns = lambda: told() - 5_000_000_000
sys.argv = ["services.fusion"]
runpy.run_module("services.fusion", run_name="__main__")
"""


class GpuFigures:
    """A page with the series of dcgm-exporter, whose values a test sets."""

    def __init__(self) -> None:
        self.values = {"DCGM_FI_DEV_XID_ERRORS": 0, "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": 4, "DCGM_FI_DEV_ROW_REMAP_FAILURE": 0}
        self.address = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[GpuFigures]:
        """Serve on loopback while the context lasts."""
        app = web.Application()
        app.add_routes([web.get("/metrics", self._page)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.address = f"127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text="".join(f'{name}{{gpu="0", Hostname="host"}} {value}\n' for name, value in self.values.items()))


async def say(producer: Producer, state: HaltState, ago_ms: int = 0) -> None:
    """Halt or resume everything, as an operator did `ago_ms` ago."""
    at_ms = SystemClock().now_ms() - ago_ms
    word = Control(schema_version=1, run_mode=MODE, scope="global", state=state, reason="a test", actor="test", ts_ms=at_ms)
    await (await producer.send(topic_name(Topic.CONTROL, MODE), key=b"global", value=word.encode()))


async def put_nonsense(producer: Producer) -> None:
    """Publish a record that no service can read."""
    await (await producer.send(topic_name(Topic.MARKET_FEATURES, MODE), key=b"IBM.XNYS", value=b"no bar at all"))


@contextlib.asynccontextmanager
async def audit_takes_nothing(bootstrap: str) -> AsyncIterator[None]:
    """Have the audit topic refuse every record, as one does whose configuration or disk went wrong."""
    config = topic_config(Topic.SIGNAL_AUDIT, 1)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await _configure(admin, {**config, "max.message.bytes": "1"})
        yield
    finally:
        await _configure(admin, config)
        await admin.close()


async def _configure(admin: AIOKafkaAdminClient, config: Mapping[str, str]) -> None:
    """Give the audit topic this configuration; return once the broker says that it has it."""
    topic = (ConfigResourceType.TOPIC, topic_name(Topic.SIGNAL_AUDIT, MODE))

    async def taken() -> bool:
        await admin.alter_configs([ConfigResource(*topic, configs=config)])
        (told,) = await admin.describe_configs([ConfigResource(*topic)])
        has = {entry[0]: entry[1] for _, _, _, _, entries in told.resources for entry in entries}
        return config.items() <= has.items()

    await until(taken, f"the audit topic to be {config}")


@contextlib.asynccontextmanager
async def engine_hangs(stack: Stack) -> AsyncIterator[None]:
    """Have the engine's GPU hang: its pages answer, and no token comes."""
    await _post(stack, "/pause_generation")
    try:
        yield
    finally:
        await _post(stack, "/continue_generation")


def worse_calibration(folder: Path) -> Path:
    """Write what an engine is like whose draft is hardly ever right."""
    calibration = json.loads(CALIBRATION.read_text())
    calibration["speculation"]["accept_length"] = 1.05
    file = folder / "worse.json"
    file.write_text(json.dumps(calibration))
    return file


async def engine_comes_back_worse(stack: Stack, kv_tokens: int) -> None:
    """Start the engine anew with a draft that is hardly ever right and a KV cache too small for the prefixes in use."""
    file = worse_calibration(stack.folder / "simulator")
    # Five times as fast as a GPU: cold prompts are answered in time all the same, or there would be no decision to see them by.
    worse = ["--calibration", file.name, "--kv-capacity-tokens", str(kv_tokens), "--time-scale", "0.2"]
    await stack.restart("simulator", [*stack.declared["simulator"]["command"], *worse])


async def worker_gets_a_slow_clock(stack: Stack) -> None:
    """Start the worker anew on a machine whose clock is five seconds slow."""
    await stack.restart("fusion", ["python", "-c", _SLOW_CLOCK])


async def _post(stack: Stack, path: str) -> None:
    key = (stack.secrets / "aquiline_engine__api_key").read_text().strip()
    url = f"http://{stack.addresses['engine:30000']}{path}"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session, session.post(url, json={}) as answer:
        answer.raise_for_status()
