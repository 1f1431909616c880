"""A service as a process of its own, as an operator runs it: a settings file, signals, health pages, metrics."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.process import free_port
from services.core.settings_reference import to_toml
from tests.integration.fusion.waiting import until

REPOSITORY = Path(__file__).parents[3]


def write_settings(file: Path, values: Mapping[str, Any]) -> Path:
    """Write nested tables as TOML and return the file."""
    lines = [f"{key} = {to_toml(value)}" for key, value in values.items() if not isinstance(value, Mapping)]
    for name, section in values.items():
        if isinstance(section, Mapping):
            lines += ["", f"[{name}]", *(f"{key} = {to_toml(value)}" for key, value in section.items())]
    file.write_text("\n".join(lines) + "\n")
    return file


class Worker:
    """One process of a service's group. It ends with the test, however that ends."""

    def __init__(self, folder: Path, name: str, values: Mapping[str, Any], service: str = "fusion") -> None:
        """Keep settings file and log in `folder`."""
        self.name = name
        self._service = service
        self.port = free_port()
        self.config = write_settings(folder / f"{name}.toml", {**values, "http": {"port": self.port}})
        self.log_file = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Worker:
        """Start the process; it is not ready yet."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AQUILINE_")}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"services.{self._service}", "--config", str(self.config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**clean, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, [clean.get("PYTHONPATH")])])},
                cwd=self.config.parent,
            )
        return self

    @property
    def running(self) -> bool:
        """Return whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """Return the exit code once it has ended."""
        return None if self._process is None else self._process.poll()

    @property
    def log(self) -> str:
        """Return what it has written."""
        return self.log_file.read_text(errors="replace")

    def tail(self) -> str:
        """Return the end of its log."""
        return f"{self.name} ({'running' if self.running else f'ended with {self.returncode}'}):\n{self.log[-3_000:]}"

    async def ready(self) -> Worker:
        """Return once it says that it is ready; raise AssertionError when it ends instead."""

        async def said() -> bool:
            assert self.running, self.tail()
            return await self._get("/readyz") is not None

        await until(said, f"{self.name} to be ready", told=self.tail)
        return self

    async def ended(self) -> int:
        """Return the exit code once the process has ended."""
        await until(lambda: not self.running, f"{self.name} to end", told=self.tail)
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """End it as a crash does (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Stop it without ending it (SIGSTOP), as a suspended machine does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to drain and end (SIGTERM)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that carry `labels`."""
        page = await self._get("/metrics")
        if page is None:
            return 0.0
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def _get(self, path: str) -> str | None:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
                session.get(f"http://127.0.0.1:{self.port}{path}") as answer,
            ):
                return await answer.text() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None
