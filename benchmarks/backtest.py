"""Time and memory of a backtest of 100,000 one-minute bars: the whole worker on a virtual clock, the simulator's rules in this process.

Five symbols of 20,000 minutes each, a seeded random walk on a calendar that never closes, with 15-minute and hourly bars built from them.
Every bar is asked about, with the default window and epoch. The run is stopped half way and resumed, as Ctrl-C and --resume do: the second
row's seconds begin with loading again what had been played.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.harness import Measured, Target, rss_mb, run_alone, say
from schemas import Candle, Instrument
from services.backtest.backtest_plan import BacktestPlan
from services.backtest.backtest_settings import backtest_settings
from services.backtest.checkpoint import Checkpoint, RunFolder, read_checkpoint
from services.backtest.feed import MODE, CandleFeed, Step
from services.backtest.request import NONE, SIMULATOR, BacktestRequest
from services.backtest.runner import BacktestRunner

SEED: Final = 20_261_127
SYMBOLS: Final = tuple(f"COIN{number}-USD.CBSE" for number in range(5))
MINUTES: Final = 20_000
LONGEST_S: Final = 900.0
_MINUTE_MS: Final = 60_000
_START_MS: Final = 1_764_547_200_000
"""2025-12-01T00:00Z."""


async def measure(quick: bool) -> Measured:  # noqa: FBT001 - the harness calls it
    """Play all bars in two halves, each in a life of its own."""
    minutes = 300 if quick else MINUTES
    empty_mb = rss_mb()
    plan = _plan(minutes)
    total = plan.feed.total
    measured = Measured(
        rows=[],
        setting={
            "bars": total,
            "symbols": len(SYMBOLS),
            "MB of bars": round(rss_mb() - empty_mb),
            "seed": SEED,
            "intervals": plan.settings.fusion.intervals,
            "window_bars": plan.settings.fusion.window_bars,
            "epoch_slots": plan.settings.fusion.epoch_slots,
        },
    )
    before_mb = rss_mb()
    with tempfile.TemporaryDirectory(prefix="aquiline-backtest-") as name:
        for what, until in (("first half", minutes // 2), ("resumed", minutes)):
            measured.rows.append(await _half(plan, Path(name), what, until, before_mb))
            say(str(measured.rows[-1]))
        files_mb = _size_mb(Path(name))
    seconds = sum(row["seconds"] for row in measured.rows)
    measured.notes.append(f"{seconds:.0f} s for {total:,} bars in all; the run left {files_mb:.0f} MB of files")
    if not quick:
        measured.targets = [
            Target("seconds for 100,000 bars, stop and resumption included", LONGEST_S, at_least=False, got=seconds, unit="s")
        ]
    return measured


async def _half(plan: BacktestPlan, path: Path, what: str, until: int, before_mb: float) -> dict[str, Any]:
    """Go on until so many instants have been played; return the row."""
    found = read_checkpoint(path) or Checkpoint(plan.options, plan.fingerprint)
    begun_at = found.steps
    started, busy = time.perf_counter(), time.process_time()
    playing_s: list[float] = []
    last = what == "resumed"
    steps = 0

    def on_step(_: Step) -> None:
        nonlocal steps
        steps += 1
        if steps == begun_at + 1:
            playing_s.append(time.perf_counter() - started)

    with RunFolder(path, found) as folder:
        ended = await BacktestRunner(plan, folder, on_step, lambda: folder.checkpoint.steps < until or last).run()
        decisions = sum(count for how, count in folder.checkpoint.outcomes.items() if how == "published")
    assert ended == last
    took_s, busy_s = time.perf_counter() - started, time.process_time() - busy
    played = (found.steps - begun_at) * len(SYMBOLS)
    return {
        "part": what,
        "bars played": played,
        "signals so far": decisions,
        "seconds": round(took_s, 1),
        "of it until the first bar": round(playing_s[0], 1),
        "of it on the processor": round(busy_s, 1),
        "bars/s": round(played / (took_s - playing_s[0])),
        "MB grown": round(rss_mb() - before_mb),
    }


def _size_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6


def _plan(minutes: int) -> BacktestPlan:
    options = BacktestRequest(
        data=("synthetic",),
        symbol=None,
        interval="1m",
        calendar="24x7",
        price_increment="0.01",
        currency="USD",
        price_adjustment="split",
        intervals=None,
        vision=NONE,
        since_ms=None,
        until_ms=None,
        engine=SIMULATOR,
        assignments=(),
        config=None,
    )
    settings = backtest_settings(options, ["1m", "15m", "1h"], ["15m", "1h"], vision=False)
    feed = CandleFeed(
        "synthetic minutes", "0" * 16, list(map(_instrument, SYMBOLS)), [], list(_candles(minutes)), {}, settings.market.aggregate
    )
    return BacktestPlan(options, feed, settings, "0" * 16)


def _candles(minutes: int) -> Iterator[Candle]:
    for number, symbol in enumerate(SYMBOLS):
        random = np.random.default_rng([SEED, number])
        closes = np.round(100 * np.exp(np.cumsum(random.normal(0, 0.0006, minutes))), 2)
        spreads = np.abs(random.normal(0, 0.0004, minutes)) * closes
        opens = np.concatenate([closes[:1], closes[:-1]])
        volumes = random.integers(1_000, 90_000, minutes)
        for slot in range(minutes):
            first, last, spread = float(opens[slot]), float(closes[slot]), float(spreads[slot])
            yield Candle(
                schema_version=1,
                run_mode=MODE,
                symbol=symbol,
                interval="1m",
                ts_open_ms=_START_MS + slot * _MINUTE_MS,
                ts_close_ms=_START_MS + (slot + 1) * _MINUTE_MS,
                open=first,
                high=round(max(first, last) + spread, 2),
                low=round(min(first, last) - spread, 2),
                close=last,
                volume=float(volumes[slot]),
                closed=True,
            )


def _instrument(symbol: str) -> Instrument:
    return Instrument(
        schema_version=1,
        run_mode=MODE,
        symbol=symbol,
        currency="USD",
        price_increment="0.01",
        calendar="24x7",
        price_adjustment="split",
    )


if __name__ == "__main__":
    sys.exit(run_alone("backtest", __doc__, measure))
