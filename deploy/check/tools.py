"""Runs the programs that checks use, from this Python's environment first, then from the system."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.check.result import REPOSITORY


class MissingToolError(Exception):
    """A program that a check needs is not installed; the message says how to install it."""


def run(program: str, arguments: Sequence[str], *, install: str) -> subprocess.CompletedProcess[str]:
    """Run `program` in the repository and return its output; raise MissingToolError, which names `install`, when it is not installed."""
    beside = Path(sys.executable).parent / program
    path = str(beside) if beside.is_file() else shutil.which(program)
    if path is None:
        raise MissingToolError(f"`{program}` is not installed; install it with: {install}")
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=False, cwd=REPOSITORY)  # noqa: S603 - named by checks


def problems(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines of a failed linter, at least one; none when it succeeded."""
    if done.returncode == 0:
        return []
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines or [f"{done.args[0]} exited with {done.returncode} and wrote nothing"]
