"""The engine as a child process in a group of its own: watched while it starts and runs, and always stopped as a whole.

A crash at import is its usual failure, and SGLang's workers outlive their parent: a group left behind holds the GPU's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from services.inference.launcher.command import Launch
from services.inference.launcher.presets import LaunchError

_PROBE_S = 1.0
_TAIL_LINES = 30


class EngineProcess:
    """A started engine."""

    def __init__(self, child: asyncio.subprocess.Process, url: str) -> None:
        """Watch `child`, the leader of its process group, which will serve at `url`."""
        self._child = child
        self._url = url
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._echo = asyncio.create_task(self._pass_on())

    @classmethod
    async def start(cls, launch: Launch, environment: Mapping[str, str] = os.environ) -> EngineProcess:
        """Start the engine; raise LaunchError when the command itself cannot be run."""
        try:
            child = await asyncio.create_subprocess_exec(
                *launch.arguments,
                env={**environment, **launch.environment},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise LaunchError(f"{launch.arguments[0]!r} cannot be run: {error}") from error
        return cls(child, launch.url)

    async def wait_until_up(self, timeout_s: float) -> None:
        """Return once the engine answers `/health`; raise LaunchError as soon as it has died, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s), aiohttp.ClientSession() as session:
                while not await self._healthy(session):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(asyncio.shield(self.ended()), _PROBE_S)
                    if self._child.returncode is not None:
                        raise LaunchError(f"the engine ended with status {self._child.returncode} before it was up: {self.reason()}")
        except TimeoutError as error:
            raise LaunchError(f"the engine was not up within {timeout_s:.0f} s; its last words: {self.reason()}") from error

    async def ended(self) -> int:
        """Return the exit status once the engine has ended and its output is read."""
        status = await self._child.wait()
        await asyncio.shield(self._echo)
        return status

    async def stop(self, grace_s: float = 15.0) -> None:
        """End the whole process group: ask, wait up to `grace_s`, then force."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._child.wait()
                    if not _alive(self._child.pid):
                        break
                    # The leader is gone, its workers are not: they get the grace period's rest.
                    while _alive(self._child.pid):  # noqa: ASYNC110 - nothing tells of the end of a process that is no child
                        await asyncio.sleep(0.05)
                    break
        with contextlib.suppress(asyncio.CancelledError):
            self._echo.cancel()
            await self._echo

    def reason(self) -> str:
        """Return the line of the output that most looks like the cause, else the last ones."""
        lines = [line for line in self._tail if line.strip()]
        errors = [line for line in lines if "Error" in line or "error:" in line or "Exception" in line]
        return (errors[-1] if errors else " / ".join(lines[-3:]) or "it said nothing")[:500]

    async def _healthy(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self._url}/health", timeout=aiohttp.ClientTimeout(total=3)) as response:
                return response.status == 200  # noqa: PLR2004 - HTTP's "OK"
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _pass_on(self) -> None:
        output = self._child.stdout
        assert output is not None  # noqa: S101 - asked for above
        while chunk := await output.read(65_536):
            text = chunk.decode(errors="replace")
            os.write(2, chunk)
            self._tail.extend(text.splitlines())


def write_ready(file: Path | None, url: str) -> None:
    """Tell of readiness: create `file`, holding the address, at once and whole."""
    if file is not None:
        partial = file.with_name(file.name + ".partial")
        partial.write_text(url + "\n", encoding="utf-8")
        partial.replace(file)


def forget_ready(file: Path | None) -> None:
    """Take readiness back."""
    if file is not None:
        file.unlink(missing_ok=True)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
