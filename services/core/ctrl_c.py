"""Ctrl-C and SIGTERM for commands that then finish what is under way and report: the demo and a backtest."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM)

T = TypeVar("T")


class RunInterruptedError(Exception):
    """Ctrl-C came before the first bar was played."""


@dataclass(slots=True)
class Interrupt:
    """Set by SIGINT or SIGTERM: the run plays no further bar, drains and reports."""

    requested: asyncio.Event = field(default_factory=asyncio.Event)
    signal_number: int = 0

    @property
    def exit_code(self) -> int:
        """Return 128 plus the signal's number, 0 without one."""
        return 128 + self.signal_number if self.signal_number else 0

    def on_signal(self, number: signal.Signals) -> None:
        """Store the signal and set `requested`."""
        self.signal_number = number
        self.requested.set()


@contextlib.contextmanager
def catch_ctrl_c(interrupt: Interrupt) -> Iterator[None]:
    """Set `interrupt` on SIGINT or SIGTERM inside the context; a second one ends the process."""
    loop = asyncio.get_running_loop()

    def leave() -> None:
        for number in _NUMBERS:
            loop.remove_signal_handler(number)

    def take(number: signal.Signals) -> None:
        interrupt.on_signal(number)
        leave()

    for number in _NUMBERS:
        loop.add_signal_handler(number, take, number)
    try:
        yield
    finally:
        leave()


async def run_unless_interrupted(interrupt: Interrupt, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; raise RunInterruptedError when the run is interrupted first."""
    task = asyncio.create_task(work)
    waiting = asyncio.create_task(interrupt.requested.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RunInterruptedError
        return await task
    finally:
        for one in (task, waiting):
            one.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)
