"""The process of the local engine: llama.cpp's HTTP server with one GGUF model, until SIGTERM, SIGINT or the end of stdin."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from services.inference.child_server import call_at_end_of_stdin

LISTENING: Final = "local engine listening on "
"""What the process prints before its address, once it serves."""

_CORES: Final = os.cpu_count() or 2
THREADS: Final = max(1, _CORES - 1)
"""Threads that decode: one for each core but one.

llama.cpp's threads wait for each other after every operation: where another process has one of two cores, two threads decode at
600 ms a token and one at 30 ms (2 cores, load 9).
"""

_BATCH_TOKENS: Final = 128
"""A step of the server takes at most this many prompt tokens: other calls' tokens and aborts wait for its end (0.7 s on 2 cores)."""
_WARNINGS: Final = 2
_POLL_S: Final = 0.05


def main(argv: list[str] | None = None) -> int:
    """Serve until told to stop; return the exit status."""
    options = _parser().parse_args(argv)
    # Threads that spin while they wait for each other take the cores away from the worker, and from each other: two that spun beside
    # other processes took three times the CPU time of one. The OpenMP library reads this when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import xllamacpp  # noqa: PLC0415 - an extra
    except ImportError as error:
        print(f"local engine: llama.cpp is not installed ({error}): pip install 'aquiline[local]'", file=sys.stderr)  # noqa: T201
        return 2
    params = xllamacpp.CommonParams()
    params.model.path = str(options.model)
    params.model_alias = {options.alias or options.model.stem}
    params.hostnames = [options.host]
    params.port = options.port
    params.n_parallel = options.slots
    params.n_ctx = options.slots * options.context
    params.n_batch = params.n_ubatch = _BATCH_TOKENS
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = _prefill_threads(options.threads)
    params.cpuparams.poll = params.cpuparams_batch.poll = 0
    # A slot keeps its prompt; copies in memory (8 GiB by default) would only be made of prompts that no slot holds any more.
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.ui = False
    params.cors_origins = ""
    params.verbosity = _WARNINGS
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        print(f"local engine: {options.model} cannot be served: {error}", file=sys.stderr)  # noqa: T201 - a command's own words
        return 1
    _wait_until_healthy(server.listening_address)
    print(f"{LISTENING}{server.listening_address}", flush=True)  # noqa: T201 - whoever started it waits for this line
    if options.tied:
        call_at_end_of_stdin(stopped.set)
    stopped.wait()
    os._exit(0)  # llama.cpp would first finish what it computes


def _prefill_threads(threads: int) -> int:
    """Return one thread more than decode, as the operations of a prefill are longer, unless the cores are taken already.

    At load 15 on 2 cores, two threads prefilled 4,226 tokens in 302 s.
    """
    return min(threads + 1, _CORES) if os.getloadavg()[0] < _CORES else threads


def _wait_until_healthy(url: str) -> None:
    """Return once the model is loaded: the address answers 503 before."""
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1.0):  # noqa: S310 - its own address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_S)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.inference.local", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the GGUF file")
    parser.add_argument("--alias", help="the model's name (default: the file's)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on, 0 for any free one (default: 0)")
    parser.add_argument("--slots", type=int, default=7, help="prompts whose KV cache is kept (default: 7)")
    parser.add_argument("--context", type=int, default=8_192, help="longest prompt with its answer, in tokens (default: 8192)")
    parser.add_argument(
        "--threads",
        type=int,
        default=THREADS,
        help=f"threads that decode; a prefill takes one more when a core is free (default: all cores but one, here {THREADS})",
    )
    parser.add_argument("--tied", action="store_true", help="end when standard input ends, as a child of whoever holds its other end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
