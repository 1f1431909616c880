"""The processes of one worker: started with its settings or environment, stopped for a while, killed, and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from benchmarks.feed import MARKET
from benchmarks.peers import site
from benchmarks.peers.catalogue import CLIENTS, OURS, WORKERS, python_of
from benchmarks.peers.plan import CALLS, EPOCH_SLOTS, Plan
from benchmarks.peers.site import PARTITIONS


@dataclass
class Worker:
    """The processes of one worker on one broker."""

    name: str
    bootstrap: str
    engine_url: str
    folder: Path
    plan: Plan
    texts: Path
    live_from_ms: int
    group: str = field(default_factory=lambda: f"peer-{uuid4().hex[:8]}")
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def start(self) -> None:
        """Start every process."""
        for command, environment in self._commands():
            with self._log.open("ab") as log:
                self.processes.append(
                    await asyncio.create_subprocess_exec(
                        *command, env=os.environ | environment, stdout=log, stderr=log, start_new_session=True
                    )
                )

    async def kill(self) -> None:
        """Kill every process as `kill -9` does."""
        self._send(signal.SIGKILL)
        for process in self.processes:
            await process.wait()
        self.processes.clear()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have every process stand still while the block runs."""
        self._send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._send(signal.SIGCONT)

    def check(self) -> None:
        """Raise RuntimeError when a process has ended by itself."""
        for process in self.processes:
            if process.returncode is not None:
                raise RuntimeError(f"{self.name} ended by itself ({process.returncode}):\n{self._log.read_text()[-2_000:]}")

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.name.replace(' ', '-')}.log"

    def _send(self, number: signal.Signals) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def _commands(self) -> list[tuple[list[str], dict[str, str]]]:
        if self.name == OURS:
            return [([sys.executable, "-m", "services.fusion", "--config", str(self.config())], {})]
        peer = WORKERS[self.name]
        python = python_of(peer)
        states = [self.folder / f"state-{self.group}-{number}" for number in range(peer.processes)]
        for state in states:
            if not state.exists():
                state.mkdir()
                if peer.module == "bytewax.run":
                    subprocess.run([python, "-m", "bytewax.recovery", state, "1"], check=True)  # noqa: S603 - a peer's own tool
        environment = {
            "PEER_BOOTSTRAP": self.bootstrap,
            "PEER_MARKET_TOPIC": MARKET,
            "PEER_PARTITIONS": str(PARTITIONS),
            "PEER_SIGNALS_TOPIC": site.PEER_SIGNALS,
            "PEER_GROUP": self.group,
            "PEER_LIVE_FROM_MS": str(self.live_from_ms),
            "PEER_CALLS": str(max(1, CALLS // peer.processes)),
            "PEER_WINDOW_BARS": str(self.plan.window_bars),
            "PEER_GROWTH_BARS": str(EPOCH_SLOTS if peer.grows else 0),
            "PEER_TEXTS_FILE": str(self.texts),
            "PEER_ENGINE_URL": self.engine_url,
            "PYTHONPATH": str(CLIENTS),
        }
        return [(peer.command(python, state), environment | {"PEER_STATE_FOLDER": str(state)}) for state in states]

    def config(self) -> Path:
        """Return the settings file of our worker."""
        file = self.folder / "aquiline.toml"
        file.write_text(
            f"""run_mode = "shadow"
[bus]
url = "kafka://{self.bootstrap}"
instance_id = "{self.group}"
[redis]
url = "none://"
[engine]
urls = ["{self.engine_url}"]
[http]
port = 0
[log]
level = "warning"
[fusion]
group = "{self.group}"
intervals = ["1m"]
window_bars = {self.plan.window_bars}
epoch_slots = {EPOCH_SLOTS}
permits = {CALLS}
rationale = "none"
flip_flop_limit = 0
rate_limit_per_min = 1000000
"""
        )
        return file
