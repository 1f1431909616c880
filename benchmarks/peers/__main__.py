"""Runs the comparison: `python -m benchmarks.peers --help`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import aiohttp

from benchmarks import peers
from benchmarks.feed import START_MS, Walk, instrument, symbols
from benchmarks.harness import Measured, run_alone, say
from benchmarks.local import module
from benchmarks.peers.catalogue import BARE, OURS, PEERS
from benchmarks.peers.contest import contest
from benchmarks.peers.figures import Row, targets
from benchmarks.peers.plan import CALLS, EPOCH_SLOTS, PHASES, VALIDITY_MS, Plan
from benchmarks.prompts import window_for
from services.core.calendar import SessionCalendar
from services.core.settings import EngineSettings
from services.fusion.decide.answer import answer_regex
from services.fusion.prompt.rules import rules
from services.fusion.prompt.wording import QUESTION, instrument_block
from services.fusion.service import load_tokenizer
from services.strategy.folder import shipped

_TOKENS: Final = 4_096
_SHARE: Final = 2 / 3


def content() -> dict[str, str]:
    """Return what stands around the bars in every prompt, ours and theirs."""
    calendar = SessionCalendar.of("24x7")
    return {
        "rules": rules(shipped(), "line"),
        "instrument": instrument_block(instrument("SYMBOL.CBSE"), calendar.zone).replace("SYMBOL.CBSE", "SYMBOL"),
        "heading": "1m bars, distances in tenths of a basis point:\n",
        "question": QUESTION["line"],
        "regex": answer_regex(rationale=False),
    }


async def _cold_capacity(seconds: float) -> float:
    """Return the calls a second that the engine ends when nothing is cached and as many as allowed always run."""
    tokenizer = load_tokenizer(EngineSettings())
    walk = Walk("SYMBOL.CBSE", 1)
    text = "".join(walk.bar(START_MS + number * 60_000).decode() for number in range(200))
    words = text[: int(len(text) * _TOKENS / tokenizer.encode(text).size)]
    ended = 0
    async with module("benchmarks.peers.simulator") as url, aiohttp.ClientSession() as session:
        until = time.monotonic() + seconds

        async def caller(number: int) -> None:
            nonlocal ended
            while time.monotonic() < until:
                number += CALLS
                body = {
                    "model": "default",
                    "max_tokens": 160,
                    "regex": answer_regex(rationale=False),
                    "messages": [{"role": "system", "content": f"{number} "}, {"role": "user", "content": f"{number} {words}"}],
                }
                async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
                    await reply.read()
                ended += time.monotonic() < until

        await asyncio.gather(*(caller(number) for number in range(CALLS)))
    return ended / seconds


def main() -> int:
    """Run everything that is asked for; return the exit status."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--peers", nargs="*", choices=sorted(PEERS), default=list(PEERS))
    chosen, rest = parser.parse_known_args()

    async def measure(quick: bool) -> Measured:  # noqa: FBT001 - the harness calls it
        count = 100 if quick else 200
        window = window_for(_TOKENS, 4, load_tokenizer(EngineSettings()), symbols(1)[0])
        capacity = await _cold_capacity(5.0 if quick else 15.0)
        say(f"with nothing cached the engine ends {capacity:.1f} calls/s; {capacity * _SHARE:.1f} bars/s are 1x")
        plan = Plan(count, window, capacity * _SHARE, many_s=10.0 if quick else 20.0, backlog=30_000 if quick else 100_000)
        rows: list[Row] = []
        failed = [f"not in this run: {', '.join(left_out)}"] if (left_out := [name for name in PEERS if name not in chosen.peers]) else []
        with tempfile.TemporaryDirectory(prefix="aquiline-peers-") as folder:
            for name in (BARE.name, OURS, *chosen.peers):
                try:
                    rows += await contest(name, plan, content(), Path(folder))
                except RuntimeError as error:
                    say(str(error))
                    failed.append(f"{name} could not be run: {str(error).splitlines()[0]}")
        return Measured(
            rows=sorted(rows, key=lambda row: PHASES.index(row["phase"])),
            targets=targets(rows),
            notes=failed,
            setting={
                "symbols": count,
                "window_bars": window,
                "epoch_slots": EPOCH_SLOTS,
                "calls at once": CALLS,
                "bars/s at 1x": round(plan.per_s, 1),
                "entry validity ms": VALIDITY_MS,
                "seconds at 10x": plan.many_s,
                "records of the backlog": plan.backlog,
            },
        )

    return run_alone("peers", peers.__doc__, measure, rest)


if __name__ == "__main__":
    sys.exit(main())
