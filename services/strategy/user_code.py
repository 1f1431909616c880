"""Calls a function of the user's own, which may raise, end the process or compute for ever, and turns all of that into one error.

Such a function runs between two records, and every other symbol waits for it.
"""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

CPU_LIMIT_MS: Final = 50
"""A function that computes for longer is interrupted."""

Result = TypeVar("Result")


class UserCodeError(Exception):
    """The function failed; the text says what it did, as in `raised KeyError: 'x'`."""


def run_user_code(function: Callable[[], Result]) -> Result:
    """Return what `function` returns; raise UserCodeError when it raises, or computes for more than CPU_LIMIT_MS in the main thread."""
    try:
        with _cpu_limit():
            return function()
    except KeyboardInterrupt:
        raise
    except _CpuLimitError:
        raise UserCodeError(f"was interrupted after {CPU_LIMIT_MS} ms of computing") from None
    except BaseException as error:
        # SystemExit and asyncio.CancelledError too: `sys.exit()` in a user's function must not end the worker.
        raise UserCodeError(f"raised {type(error).__name__}: {error}") from error


class _CpuLimitError(BaseException):
    """Not an Exception, so that a function's own `except Exception` does not catch it."""


_running = False


def _interrupt(signum: int, frame: object) -> None:
    del signum, frame
    # Python runs this between two instructions of the main thread: a function that has just returned is not interrupted.
    if _running:
        raise _CpuLimitError


@contextmanager
def _cpu_limit() -> Iterator[None]:
    """Interrupt the block after CPU_LIMIT_MS of computing; elsewhere than in the main thread, where no signal comes, do nothing.

    Python's garbage collector waits meanwhile: a pass over all objects of a worker takes longer than that, and is not the function's doing.
    """
    global _running  # noqa: PLW0603 - a signal's handler has no other way to know
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _interrupt)
    collects = gc.isenabled()
    gc.disable()
    try:
        _running = True
        # Again and again: a function that swallows the first interruption gets another.
        signal.setitimer(signal.ITIMER_VIRTUAL, CPU_LIMIT_MS / 1_000, CPU_LIMIT_MS / 1_000)
        yield
    finally:
        _running = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        if collects:
            gc.enable()
