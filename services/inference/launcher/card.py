"""The card's memory, asked of the driver."""

from __future__ import annotations

import shutil
import subprocess

_MIB = 1024**2
_TIMEOUT_S = 10


def card_bytes() -> int | None:
    """Return the first visible card's memory in bytes, None where there is no NVIDIA driver to ask."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        said = subprocess.run(  # noqa: S603 - a fixed command
            [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
        return int(said.stdout.split()[0]) * _MIB
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
