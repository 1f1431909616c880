"""Runs the simulator: `python -m services.inference.simulator --help`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Final

from services.core.tokenizer import Tokenizer
from services.inference.child_server import call_at_end_of_stdin
from services.inference.simulator.server import Simulator
from services.inference.simulator.timing import Calibration

LISTENING: Final = "simulator listening on "
"""What the process prints before its address, once it serves."""

DATA: Final = Path(__file__).parent.parent / "data"
_TEACHING = """
It speaks the part of SGLang's API that Aquiline uses, so that everything but the model can be tried without a GPU:

  python -m services.inference.simulator --port 30000
  curl -s http://127.0.0.1:30000/server_info
  curl -sN http://127.0.0.1:30000/generate -d '{"text": "close=101.5 atr=2 rsi=61 ema_fast=101 ema_slow=100 ", "stream": true}'

Prefix hits come from a real radix tree and times from measurements of one GPU (see the calibration file); answers come from
fixed rules applied to the last name=value pairs of the prompt, and say so. The same seed and prompt give the same answer.
SIGTERM and Ctrl-C end it at once, cutting the calls in flight.
"""


def main(argv: list[str] | None = None) -> int:
    """Serve until told to stop; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m services.inference.simulator",
        description="An SGLang server without a model and without a GPU.",
        epilog=_TEACHING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=30_000, help="port to listen on, 0 for any free one (default: 30000)")
    parser.add_argument("--calibration", type=Path, default=DATA / "calibration-h100.json", help="which GPU (default: one H100)")
    parser.add_argument("--tokenizer", type=Path, default=DATA / "tokenizer.json", help="tokenizer.json that prompts are made with")
    parser.add_argument("--seed", type=int, default=0, help="for the draws of accepted tokens (default: 0)")
    parser.add_argument("--time-scale", type=float, default=1.0, help="2 is half as fast as the GPU, 0 waits for nothing (default: 1)")
    parser.add_argument("--kv-capacity-tokens", type=int, help="a smaller or larger KV cache than the calibration's")
    parser.add_argument("--api-key-file", type=Path, help="file that holds the bearer token to ask for")
    parser.add_argument("--tied", action="store_true", help="end when standard input ends, as a child of whoever holds its other end")
    options = parser.parse_args(argv)
    if options.time_scale < 0:
        parser.error(f"--time-scale must not be negative, not {options.time_scale}")
    try:
        calibration = Calibration.from_file(options.calibration)
        if options.kv_capacity_tokens is not None:
            calibration = calibration.with_kv_capacity(options.kv_capacity_tokens)
        api_key = options.api_key_file.read_text(encoding="utf-8").strip() if options.api_key_file else None
        simulator = Simulator(
            calibration,
            Tokenizer.from_file(options.tokenizer),
            seed=options.seed,
            time_scale=options.time_scale,
            api_key=api_key,
        )
        if options.tied:
            call_at_end_of_stdin(lambda: os._exit(0))
        asyncio.run(_serve(simulator, options.host, options.port))
    except (ValueError, OSError) as error:
        print(f"simulator: {error}", file=sys.stderr)  # noqa: T201 - a command's own words
        return 1
    return 0


async def _serve(simulator: Simulator, host: str, port: int) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with simulator.serving(host, port) as url:
        print(f"{LISTENING}{url}", flush=True)  # noqa: T201 - whoever started it waits for this line
        await stopped.wait()


if __name__ == "__main__":
    sys.exit(main())
