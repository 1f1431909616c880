"""Small backtests: minutes of two symbols, a short window, the simulator's rules in this process."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas import AuditRecord, Candle, InstrumentEvent, Signal, SignalOutcome, VisionFeatures, decode_signal_message
from services.backtest.backtest_plan import BacktestPlan
from services.backtest.backtest_settings import backtest_settings
from services.backtest.checkpoint import AUDIT, OUTCOMES, SIGNALS, Checkpoint, RunFolder, read_checkpoint
from services.backtest.feed import MODE, CandleFeed, Feed, Step
from services.backtest.request import BacktestRequest
from services.backtest.runner import BacktestRunner
from tests.unit.fusion.build import MINUTE, START, instrument

SYMBOLS = ("BTC-USD.CBSE", "ETH-USD.CBSE")
OPTIONS = BacktestRequest(
    data=("here",),
    symbol=None,
    interval="1m",
    calendar="24x7",
    price_increment="0.01",
    currency="USD",
    price_adjustment="none",
    intervals="1m,5m",
    vision="none",
    since_ms=None,
    until_ms=None,
    engine="simulator",
    assignments=(
        "fusion.window_bars=12",
        "fusion.epoch_slots=4",
        "fusion.slow_window_bars=4",
        "fusion.min_bars=3",
        "fusion.flip_flop_limit=2",
        "fusion.cool_down_ms=120000",
    ),
    config=None,
)


def candle(symbol: str, slot: int, close: float, opened: float | None = None, volume: float = 1_000.0) -> Candle:
    """Return the bar of the `slot`-th minute."""
    first = close if opened is None else opened
    return Candle(
        schema_version=1,
        run_mode=MODE,
        symbol=symbol,
        interval="1m",
        ts_open_ms=START + slot * MINUTE,
        ts_close_ms=START + (slot + 1) * MINUTE,
        open=first,
        high=round(max(first, close) * 1.001, 2),
        low=round(min(first, close) * 0.999, 2),
        close=close,
        volume=volume,
        closed=True,
    )


def walk(bars: int, seed: int = 0, symbols: Sequence[str] = SYMBOLS) -> list[Candle]:
    """Return minutes of a random walk with swings that the simulator's rules take sides on; now and then a bar is missing."""
    rng = random.Random(seed)  # noqa: S311
    made = []
    for symbol in symbols:
        close, drift = 100.0, 0.001
        for slot in range(bars):
            if slot % 15 == 0:
                drift = rng.choice([-0.0012, 0.0012])
            opened, close = close, round(close * (1 + drift + rng.uniform(-0.003, 0.003)), 2)
            if rng.random() > 0.02:
                made.append(candle(symbol, slot, close, opened, float(rng.randint(500, 1500))))
    return made


def plan(
    candles: Sequence[Candle],
    *,
    charts: Mapping[tuple[str, int], VisionFeatures] | None = None,
    splits: Sequence[InstrumentEvent] = (),
    since_ms: int | None = None,
    assignments: Sequence[str] = (),
) -> BacktestPlan:
    """Return a plan to play these candles."""
    options = BacktestRequest(**{**_values(OPTIONS), "assignments": (*OPTIONS.assignments, *assignments)})
    settings = backtest_settings(options, ["1m", "5m"], ["5m"], vision=bool(charts))
    symbols = sorted({one.symbol for one in candles})
    instruments = [instrument(symbol).model_copy(update={"run_mode": MODE}) for symbol in symbols]
    feed = CandleFeed("here", "0" * 16, instruments, splits, candles, charts or {}, settings.market.aggregate, since_ms)
    return planned(feed, settings, options)


def planned(feed: Feed, settings: Any, options: BacktestRequest = OPTIONS) -> BacktestPlan:
    """Return a plan to play a feed."""
    return BacktestPlan(options, feed, settings, "f" * 16)


def _values(options: BacktestRequest) -> dict[str, Any]:
    return {name: getattr(options, name) for name in BacktestRequest.__slots__}


class Ran:
    """A folder after a run, or a part of one."""

    def __init__(self, path: Path, ended: bool, runner: BacktestRunner) -> None:  # noqa: FBT001
        self.path = path
        self.ended = ended
        self.runner = runner

    def bytes(self) -> dict[str, bytes]:
        """Return the files that must come out the same."""
        return {name: (self.path / name).read_bytes() for name in (SIGNALS, AUDIT, OUTCOMES)}

    @property
    def signals(self) -> list[Signal]:
        messages = [decode_signal_message(line) for line in (self.path / SIGNALS).read_bytes().splitlines()]
        return [message for message in messages if isinstance(message, Signal)]

    @property
    def audits(self) -> list[AuditRecord]:
        return [AuditRecord.decode(line) for line in (self.path / AUDIT).read_bytes().splitlines()]

    @property
    def outcomes(self) -> list[SignalOutcome]:
        return [SignalOutcome.decode(line) for line in (self.path / OUTCOMES).read_bytes().splitlines()]


async def run(
    using: BacktestPlan, path: Path, wanted: Callable[[], bool] = lambda: True, on_step: Callable[[Step], None] | None = None
) -> Ran:
    """Run a plan in a folder, going on from the checkpoint there is in it."""
    with RunFolder(path, read_checkpoint(path) or Checkpoint(using.options, using.fingerprint)) as folder:
        runner = BacktestRunner(using, folder, on_step or (lambda _: None), wanted)
        return Ran(path, await runner.run(), runner)


def after(steps: int) -> tuple[Callable[[], bool], Callable[[Step], None]]:
    """Return what stops a run once so many steps are played, those of earlier lives included, and what counts them."""
    left = steps

    def on_step(step: Step) -> None:
        nonlocal left
        left -= not step.history

    return lambda: left > 0, on_step
