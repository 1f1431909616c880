"""Rebuild, memory and fold of one worker with 100, 1,000 and 10,000 symbols at 1m.

The worker is the real one with its default window, so a book holds 384 bars. It takes every symbol over from Kafka in a process of its
own, and builds each symbol's prompt once; its memory is what that process has grown by. Then a worker folds a stream in which all
symbols take turns, 11 forming updates to each closed bar. The symbols share 16 walks, so that making the records costs little.
"""

from __future__ import annotations

import statistics
import sys
from typing import Final

from benchmarks.feed import closed_minutes, load, minutes, publish_instruments, symbols
from benchmarks.fold import worker
from benchmarks.harness import Measured, Target, run_alone, say
from benchmarks.local import kafka
from benchmarks.rebuild import EPOCH_SLOTS, taken_over
from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.fusion_settings import FusionSettings
from services.core.settings import BusSettings

COUNTS: Final = (100, 1_000, 10_000)
PARTITIONS: Final = 12
"""As the job `topics` of k8s/ creates."""
WINDOW_BARS: Final = FusionSettings().window_bars
BARS: Final = WINDOW_BARS + 2 * EPOCH_SLOTS
MOST_MB_A_THOUSAND: Final = 300.0
LEAST_OF_PACE: Final = 0.5


async def measure(quick: bool) -> Measured:  # noqa: FBT001 - the harness calls it
    """Measure each count of symbols."""
    counts, folded, rounds = (COUNTS[:2], 24_000, 1) if quick else (COUNTS, 360_000, 3)
    measured = Measured(
        rows=[],
        setting={"window_bars": WINDOW_BARS, "epoch_slots": EPOCH_SLOTS, "partitions": PARTITIONS, "fold rounds": rounds},
    )
    for count in counts:
        names = symbols(count)
        rebuilt = await _rebuilt(names)
        pace, busy_us = await _folded(names, folded, rounds)
        measured.rows.append(
            {
                "symbols": count,
                "bars taken over": rebuilt["bars held"],
                "rebuild s": rebuilt["seconds"],
                "rebuild processor s": rebuilt["of it on the processor"],
                "MB rebuilt": rebuilt["MB rebuilt"],
                "MB with prompts built": rebuilt["MB with prompts built"],
                "fold records/s": round(pace),
                "fold processor µs a record": round(busy_us, 1),
            }
        )
        say(str(measured.rows[-1]))
    most, least = measured.rows[-1], measured.rows[0]
    measured.targets = [
        Target(
            f"growth of memory with every prompt built, {most['symbols']:,} symbols",
            MOST_MB_A_THOUSAND * most["symbols"] / 1_000,
            at_least=False,
            got=most["MB with prompts built"],
            unit="MB",
        ),
        Target(
            f"processor time to fold a record, {least['symbols']:,} symbols over {most['symbols']:,}",
            LEAST_OF_PACE,
            at_least=True,
            got=round(least["fold processor µs a record"] / most["fold processor µs a record"], 3),
        ),
    ]
    return measured


async def _rebuilt(names: list[str]) -> dict[str, float]:
    async with kafka(PARTITIONS) as server:
        await publish_instruments(KafkaBus(BusSettings(url=server.url), SystemClock()), names)
        total, size = await load(server.bootstrap, closed_minutes(names, BARS), PARTITIONS)
        say(f"{total} records of {size:.0f} bytes on average, {len(names)} symbols")
        return await taken_over(server.url, len(names), BARS)


async def _folded(names: list[str], wanted: int, rounds: int) -> tuple[float, float]:
    """Return records a second, and microseconds of the processor a record: medians over the rounds."""
    async with kafka(1) as server:  # one partition, as in `fold`
        settings = BusSettings(url=server.url)
        await publish_instruments(KafkaBus(settings, SystemClock()), names)
        bars = max(1, wanted // len(names) // 12)
        total, _ = await load(server.bootstrap, minutes(names, bars), 1)
        paces = [await worker(settings, total, max(2_000, len(names))) for _ in range(rounds)]
    return statistics.median(pace.per_s for pace in paces), statistics.median(pace.busy_us for pace in paces)


if __name__ == "__main__":
    sys.exit(run_alone("symbols", __doc__, measure))
