"""Runs the programs that checks are made of: those of this Python's environment first, then the system's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.check.found import REPOSITORY


class MissingToolError(Exception):
    """A program that a check needs is not on this machine; the text says how to get it."""


def run(program: str, arguments: Sequence[str], *, install: str) -> subprocess.CompletedProcess[str]:
    """Return what `program` said, run in the repository; raise MissingToolError, naming `install`, when there is none."""
    beside = Path(sys.executable).parent / program
    found = str(beside) if beside.is_file() else shutil.which(program)
    if found is None:
        raise MissingToolError(f"`{program}` is not on this machine; get it with: {install}")
    return subprocess.run([found, *arguments], capture_output=True, text=True, check=False, cwd=REPOSITORY)  # noqa: S603 - named by checks


def problems(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines that a linter wrote when it was not content, at least one, and none when it was."""
    if done.returncode == 0:
        return []
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines or [f"{done.args[0]} ended with {done.returncode} and said nothing"]
