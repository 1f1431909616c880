"""The workers that are compared, how each is started, and the environment that its libraries live in."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
CLIENTS: Final = Path(__file__).parent / "clients"
_REQUIREMENTS: Final = CLIENTS / "requirements"
_ENVIRONMENTS: Final = _ROOT / ".cache" / "peers"


@dataclass(frozen=True, slots=True)
class Peer:
    """A worker as the users of a library would write it."""

    name: str
    file: str
    """In `clients/`."""
    requirements: str
    """In `clients/requirements/`, without the extension."""
    arguments: tuple[str, ...] = ()
    """After the file, with the folder of its state."""
    module: str | None = None
    """What runs the file, where it is not a script."""
    processes: int = 1
    grows: bool = False
    seeded: bool = False
    """Whether it starts at its group's commits, having read what is before them: the group gets its first commit from the benchmark."""

    def command(self, python: Path, state: Path) -> list[str]:
        """Return what starts one of its processes, with its state in the folder `state`."""
        run = ["-m", self.module, f"{CLIENTS / self.file}:flow"] if self.module else [str(CLIENTS / self.file)]
        return [str(python), *run, *(argument.format(state=state) for argument in self.arguments)]


OURS: Final = "Aquiline"
PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer("growing window", "growing_window.py", "aiokafka", grows=True, seeded=True),
        Peer("sliding window", "sliding_window.py", "aiokafka", seeded=True),
        Peer("FastStream", "fast_stream.py", "faststream", seeded=True),
        Peer("Faust", "faust_agent.py", "faust", arguments=("worker", "-l", "warn", "--without-web")),
        Peer("Quix Streams", "quix.py", "quixstreams", processes=8),
        Peer("Bytewax", "byte_wax.py", "bytewax", module="bytewax.run", arguments=("-r", "{state}", "-s", "1", "-b", "0")),
    )
}


BARE: Final = Peer("bare aiokafka", "bare_loop.py", "aiokafka", seeded=True)
"""Asks nothing: the measure of records a second."""
WORKERS: Final = PEERS | {BARE.name: BARE}


def python_of(peer: Peer) -> Path:
    """Return the Python of a peer's environment, which is made from its lock where it is missing or older."""
    lock = _REQUIREMENTS / f"{peer.requirements}.txt"
    folder = _ENVIRONMENTS / peer.requirements
    python, stamp = folder / "bin" / "python", folder / "lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    print(f"  installing the packages of {lock.relative_to(_ROOT)} into {folder.relative_to(_ROOT)}", file=sys.stderr, flush=True)
    uv = _uv()
    _run(uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder))
    _run(uv, "pip", "install", "-q", "--no-deps", "--require-hashes", "--python", str(python), "-r", str(lock))
    stamp.write_text(digest)
    return python


def write_locks() -> None:
    """Resolve each requirements file, with hashes and without a host's name, as `make lock` does."""
    uv = _uv()
    for source in sorted(_REQUIREMENTS.glob("*.in")):
        lock = source.with_suffix(".txt")
        options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-header"]
        _run(uv, "pip", "compile", "-q", str(source), *options, "--no-emit-index-url", "--no-emit-find-links", "-o", str(lock))


def _uv() -> str:
    """Return uv, installed beside the locks' own as `deploy/setup/lock` does."""
    folder = _ROOT / ".cache" / "uv"
    uv = folder / "bin" / "uv"
    if not uv.exists():
        _run(sys.executable, "-m", "venv", str(folder))
        _run(str(folder / "bin" / "pip"), "--disable-pip-version-check", "install", "-q", "uv")
    return str(uv)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env={**os.environ, "UV_NO_PROGRESS": "1"})  # noqa: S603 - our own tools


if __name__ == "__main__":
    write_locks()
