"""The engine as a process: watched, warmed, reported ready, and stopped with all that it started; the simulator stands in for it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from services.core.clock import SystemClock
from services.doctor.engine_start import prefixes_in_use
from services.fusion.decide.answer import answer_regex
from services.inference.engine import Chunk, EngineError, EngineRequest, Sampling
from services.inference.launcher import serving, warming
from services.inference.launcher.command import Launch
from services.inference.launcher.presets import LaunchError
from services.inference.launcher.process import EngineProcess
from services.inference.sglang_client import SGLangEngine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def simulator(time_scale: float = 0) -> Launch:
    port = free_port()
    arguments = [sys.executable, "-m", "services.inference.simulator", "--port", str(port), "--time-scale", str(time_scale)]
    return Launch(arguments, {}, f"http://127.0.0.1:{port}")


def script(text: str) -> Launch:
    return Launch([sys.executable, "-c", text], {}, f"http://127.0.0.1:{free_port()}")


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - files and processes tell nobody
            await asyncio.sleep(0.01)


@pytest.fixture
async def engine() -> AsyncIterator[SGLangEngine]:
    process = await EngineProcess.start(simulator())
    await process.wait_until_up(60)
    client = SGLangEngine(process._url, SystemClock())
    yield client
    await client.close()
    await process.stop()


async def test_an_engine_that_dies_while_starting_is_told_at_once_with_its_error() -> None:
    process = await EngineProcess.start(script("import sys; print('loading'); sys.exit('ImportError: no module named nvcc')"))
    with pytest.raises(LaunchError, match=r"ended with status 1 before it was up: .*no module named nvcc"):
        await process.wait_until_up(60)
    await process.stop()


async def test_an_engine_that_does_not_come_up_in_time_is_told_with_its_last_words() -> None:
    process = await EngineProcess.start(script("import time; print('still loading', flush=True); time.sleep(600)"))
    with pytest.raises(LaunchError, match="not up within 1 s"):
        await process.wait_until_up(1)
    await process.stop()


async def test_a_command_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(LaunchError, match="cannot be run"):
        await EngineProcess.start(Launch(["/nowhere/python"], {}, "http://127.0.0.1:1"))


@pytest.mark.parametrize("deaf", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN);"])
async def test_stopping_ends_workers_too_even_those_that_do_not_listen(tmp_path: Path, deaf: str) -> None:
    file = tmp_path / "pid"
    worker = f"import os, signal, time; {deaf} open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {worker!r}]); time.sleep(600)"
    process = await EngineProcess.start(script(parent))
    await until(lambda: file.exists() and bool(file.read_text()))
    await process.stop(grace_s=0.5)
    pid = int(file.read_text())
    await until(lambda: not runs(pid))


async def test_every_kind_of_request_is_sent_before_an_engine_is_warm(engine: SGLangEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Sampling] = []
    stream = engine.stream

    def recorded(request: EngineRequest) -> AsyncGenerator[Chunk]:
        sent.append(request.sampling)
        return stream(request)

    monkeypatch.setattr(engine, "stream", recorded)
    rows = await warming.warm(engine, context=8_192, permits=3, regex="yes|no")
    kinds = [row.kind for row in rows]
    assert kinds[-5:] == ["decode", "decode, sampled", "thought", "decode, 3 at once", "grammar"]
    assert {kind.split(",")[0] for kind in kinds} == {"cold prefill", "cached prefill", "decode", "thought", "grammar"}
    ways = {(one.temperature > 0, one.top_p < 1, one.stop) for one in sent}
    assert ways >= {(False, False, None), (True, False, None), (True, True, "</think>")}
    assert all(row.first_ms > 0 for row in rows)


async def test_prefixes_come_back_hottest_first_and_no_more_than_fit(engine: SGLangEngine) -> None:
    prefixes = [np.arange(start, start + 400, dtype=np.int32) for start in (300, 330, 360)]

    async def source() -> list[np.ndarray[tuple[int], np.dtype[np.int32]]]:
        return prefixes

    assert await warming.rewarm(engine, source, capacity_tokens=900) == (2, 800)
    again = await engine.warm("0" * 32, "x", prefixes[0])
    assert again.cached_tokens is not None
    assert again.cached_tokens >= 398
    fresh = await engine.warm("1" * 32, "x", prefixes[2])
    assert fresh.cached_tokens == 0


async def test_a_prefix_that_the_engine_refuses_is_passed_over(engine: SGLangEngine) -> None:
    bad = np.full(10, 2**30, dtype=np.int32)
    with pytest.raises(EngineError):
        await engine.warm("2" * 32, "x", bad)

    async def source() -> list[np.ndarray[tuple[int], np.dtype[np.int32]]]:
        return [bad, np.arange(600, 700, dtype=np.int32)]

    assert await warming.rewarm(engine, source, capacity_tokens=10_000) == (1, 100)


async def test_serving_reports_ready_after_warming_and_takes_it_back_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_REDIS__URL", "none://")
    ready = tmp_path / "ready"
    launch = simulator()
    lines: list[str] = []
    engine = serving.Serving(
        launch, 8_192, 2, ready, answer_regex(rationale=True), lambda: prefixes_in_use(launch.url, tmp_path / "tokenizer.json")
    )
    running = asyncio.create_task(serving.serve(engine, lines.append))
    await until(lambda: ready.exists() or running.done())
    assert ready.read_text().strip() == launch.url
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
    assert not ready.exists()
    said = "\n".join(lines)
    assert said.index("grammar") < said.index("0 prefixes that were in use") < said.index("ready at")


async def test_an_engine_that_ends_while_serving_is_an_error() -> None:
    engine = serving.Serving(
        script("raise SystemExit('RuntimeError: CUDA out of memory')"), 8_192, 1, None, answer_regex(rationale=True), None
    )
    with pytest.raises(LaunchError, match="CUDA out of memory"):
        await serving.serve(engine, lambda _: None)
