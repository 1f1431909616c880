"""The `aquiline` command as an operator runs it: a process of its own, without this one's variables."""

from __future__ import annotations

import asyncio
import os
import sys


async def aquiline(*arguments: str) -> tuple[int, str]:
    """Run the command; return its exit code and all that it said."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AQUILINE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from services.cli.main import main; main()",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**clean, "COLUMNS": "200"},
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()
