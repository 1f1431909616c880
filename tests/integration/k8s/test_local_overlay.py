"""The overlay `local` as processes: what its manifests say starts, becomes ready by its own probes, and ends within its grace period."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from deploy.check.k8s.rendered import render
from deploy.local import LocalKafka, LocalRedis
from tests.conftest import start_or_skip
from tests.integration.fusion.waiting import until
from tests.integration.k8s.pod import Pod

SERVICES = ("market", "vision", "fusion", "scoring", "console")


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Return a folder of secrets, made as docs/operations.md says."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    variables = {"AQUILINE_SECRETS_DIR": str(folder), "AQUILINE_REDIS__USERNAME": "aquiline"}
    aquiline = Path(sys.executable).parent / "aquiline"
    subprocess.run([aquiline, "secrets", "create"], check=True, env={"PATH": os.environ["PATH"], **variables})
    return folder


@pytest.fixture
def pods(tmp_path: Path, secrets: Path) -> Iterator[dict[str, Pod]]:
    """Return the overlay's pods that are ours, beside a broker and a Redis of their own."""
    overlay = render("k8s/overlays/local")
    texts = {file.name: file.read_text() for file in secrets.iterdir()}
    with (
        start_or_skip(LocalKafka(tmp_path / "kafka")) as kafka,
        start_or_skip(LocalRedis(tmp_path / "redis", arguments=["--aclfile", str(secrets / "redis.acl")])) as redis,
    ):
        engine = Pod(tmp_path, overlay, "engine", {}, texts)
        addresses = {
            "kafka://kafka:9092": kafka.url,
            "redis://redis:6379/0": redis.url,
            "http://engine:30000": f"http://127.0.0.1:{engine.ports['http']}",
        }
        made = {name: Pod(tmp_path, overlay, name, addresses, texts) for name in ("topics", *SERVICES)} | {"engine": engine}
        yield made
        for pod in made.values():
            pod.kill()


@pytest.mark.integration
async def test_what_the_manifests_say_starts_becomes_ready_and_ends_in_time(pods: dict[str, Pod]) -> None:
    topics, engine = pods["topics"], pods["engine"]
    topics.start()
    engine.start()
    await until(lambda: topics.ended is not None, "the job topics to end", told=lambda: topics.log)
    assert topics.ended == 0, topics.log
    await until(lambda: engine.passes("readinessProbe"), "the simulator to be ready", told=lambda: engine.log)
    for name in SERVICES:
        pods[name].start()
    for pod in (pods[name] for name in SERVICES):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            await until(partial(pod.passes, probe), f"{pod.workload.name}'s {probe}", told=partial(getattr, pod, "log"))
    codes = await asyncio.gather(*(asyncio.to_thread(pods[name].terminate) for name in SERVICES))
    assert codes == [0] * len(SERVICES), "\n".join(pods[name].log for name in SERVICES)


@pytest.mark.integration
async def test_the_console_halts_for_the_holder_of_the_token_that_its_secret_holds(pods: dict[str, Pod], secrets: Path) -> None:
    topics, console = pods["topics"], pods["console"]
    topics.start()
    await until(lambda: topics.ended is not None, "the job topics to end", told=lambda: topics.log)
    console.start()
    await until(partial(console.passes, "readinessProbe"), "the console to be ready", told=lambda: console.log)
    url = f"http://127.0.0.1:{console.console_port}"
    command = {"state": "HALTED", "reason": "a test", "actor": "ann", "confirmed": True}
    answered = {}
    async with aiohttp.ClientSession(url, headers={"Origin": url}) as session:
        for token in ("another", (secrets / "aquiline_console__token").read_text()):
            async with session.post("/api/control", json=command, headers={"Authorization": f"Bearer {token}"}) as answer:
                answered[token == "another"] = answer.status
    assert answered == {True: 401, False: 200}
