"""A service's process: it drains on the first signal, ends at once on the second, and says in a sentence why it cannot run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PROGRAM = """
import asyncio, sys
from services.core.bus.port import BusError
from services.core.lifecycle import run_service
from services.core.settings import SettingsError

def say(text):
    print(text, flush=True)

class Draining:
    def __init__(self, *, drains=True):
        self.stopped = asyncio.Event()
        self.drains = drains
    async def run(self):
        say("running")
        await self.stopped.wait()
        say("draining")
        if not self.drains:
            await asyncio.Event().wait()
        say("drained")
    def stop(self):
        self.stopped.set()

class Ends:
    def __init__(self, error=None):
        self.error = error
    async def run(self):
        if self.error:
            raise self.error
    def stop(self):
        pass

async def build(settings, clock, health):
    match kind:
        case "drains": return Draining()
        case "hangs": return Draining(drains=False)
        case "slow":
            say("building")
            await asyncio.Event().wait()
        case "ends": return Ends()
        case "bus": raise BusError("no broker at 127.0.0.1:1; start one")
        case "group":
            gone = BusError("first gone")
            return Ends(ExceptionGroup("tasks", [gone, ExceptionGroup("inner", [gone])]))
        case "settings": raise SettingsError("topics differ in partitions")
        case "crash": return Ends(ValueError("odd\\nvalue"))

kind = sys.argv[1]
sys.exit(run_service("market", build, sys.argv[2:]))
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return file


def _environment(**more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AQUILINE_")}
    return {**clean, "PYTHONPATH": str(ROOT), "AQUILINE_HTTP__PORT": "0", **more}


@contextmanager
def _started(program: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(program), kind], env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _ran(program: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(program), *arguments],
        env=_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(program: Path, number: signal.Signals) -> None:
    with _started(program, "drains") as process:
        assert _next_line(process) == "running"
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert out.split() == ["draining", "drained"]
    assert process.returncode == 0


def test_the_second_signal_ends_the_process_at_once(program: Path) -> None:
    with _started(program, "hangs") as process:
        assert _next_line(process) == "running"
        process.send_signal(signal.SIGTERM)
        assert _next_line(process) == "draining"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert out == ""
    assert process.returncode == 128 + signal.SIGTERM


def test_a_signal_while_the_service_is_being_built_ends_the_building(program: Path) -> None:
    with _started(program, "slow") as process:
        assert _next_line(process) == "building"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_service_that_has_nothing_more_to_do_ends_well(program: Path) -> None:
    assert _ran(program, "ends").returncode == 0


@pytest.mark.parametrize(
    ("kind", "code", "sentence"),
    [
        ("bus", 1, "aquiline market: no broker at 127.0.0.1:1; start one"),
        ("group", 1, "aquiline market: first gone"),
        ("settings", 2, "aquiline market: topics differ in partitions"),
    ],
)
def test_what_cannot_go_on_says_so_in_one_sentence(program: Path, kind: str, code: int, sentence: str) -> None:
    ran = _ran(program, kind)
    assert ran.returncode == code
    assert ran.stderr.splitlines()[-1] == sentence
    assert "Traceback" not in ran.stderr


def test_settings_that_cannot_be_used_end_the_process_before_anything_is_built(program: Path) -> None:
    ran = _ran(program, "ends", AQUILINE_LOG__LEVEL="loud")
    assert ran.returncode == 2
    assert ran.stderr.startswith("aquiline market: log.level = 'loud'")


def test_a_settings_file_is_named_by_an_option(program: Path, tmp_path: Path) -> None:
    ran = _ran(program, "ends", "--config", str(tmp_path / "absent.toml"))
    assert ran.returncode == 2
    assert "absent.toml" in ran.stderr


def test_an_unforeseen_error_goes_to_the_log_in_full_on_one_line(program: Path) -> None:
    ran = _ran(program, "crash")
    assert ran.returncode == 1
    (line,) = [line for line in ran.stderr.splitlines() if "service_failed" in line]
    assert r"odd\nvalue" in line
