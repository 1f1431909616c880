"""Training data from the shipped stocks: the setups decide in a backtest for each shape of prompt, and the decisions are exported.

What a user's own audit and outcomes give by `aquiline export training`, this gives without a worker that has run for years.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from services.backtest.backtest_plan import prepare
from services.backtest.checkpoint import AUDIT, Checkpoint, RunFolder, read_checkpoint
from services.backtest.request import DEMO, RECORDED, RULES, BacktestRequest
from services.backtest.runner import BacktestRunner
from services.inference.rules import RulesEngine
from services.replay.replay_command import Source
from services.replay.training_command import TrainingRequest, export_training
from services.training.setups import decide

TEST_FROM: Final = dt.datetime(2010, 1, 1, tzinfo=dt.UTC)
"""Decisions before it are for training, those from then on for testing."""
_EMBARGO_MS: Final = 30 * 86_400_000


class Shape(NamedTuple):
    """What a prompt shows: intervals, bars before the epoch's boundary, and slots of an epoch."""

    name: str
    intervals: str
    window_bars: int
    epoch_slots: int


SHAPES: Final = (
    Shape("1k", "1d", 10, 6),
    Shape("2k", "1d", 35, 34),
    Shape("weekly", "1d,1w", 35, 32),
    Shape("4k", "1d", 64, 40),
    Shape("8k", "1d", 150, 40),
    Shape("full", "1d", 192, 14),
)
"""1,000 to 8,000 tokens; `2k` is what the demo's real model reads, `full` as much as SmolLM2 can."""
_SLOW_WINDOW_BARS: Final = 24


async def export_samples(
    folder: Path,
    *,
    tokenizer_file: Path | None,
    chat_template: str,
    vision: str = RECORDED,
    shapes: tuple[Shape, ...] = SHAPES,
    until_ms: int | None = None,
    progress: Callable[[str], None],
) -> list[Path]:
    """Write an export for each of `shapes` into a folder of its own in `folder`, and return these folders.

    Continues where an earlier call was interrupted. Raises SettingsError, ServiceError.
    """
    written = []
    for shape in shapes:
        room = folder / shape.name
        written.append(room)
        if (room / "dataset_info.json").is_file():
            progress(f"{shape.name}: exported already")
            continue
        progress(f"{shape.name}: deciding on every bar")
        request = _request(shape, tokenizer_file, chat_template, vision=vision, until_ms=until_ms)
        await _run(request, room)
        source = Source(str(room / AUDIT), None, None, None, None)
        await export_training(
            TrainingRequest(
                source=source,
                outcomes=None,
                others=(),
                folder=room,
                test_from_ms=round(TEST_FROM.timestamp() * 1000),
                test_share=0.5,
                embargo_ms=_EMBARGO_MS,
                min_difference=0.0,
            )
        )
    return written


def _request(shape: Shape, tokenizer_file: Path | None, chat_template: str, *, vision: str, until_ms: int | None) -> BacktestRequest:
    assignments = {
        "fusion.window_bars": str(shape.window_bars),
        "fusion.epoch_slots": str(shape.epoch_slots),
        "fusion.slow_window_bars": str(_SLOW_WINDOW_BARS),
        "fusion.min_bars": str(min(20, shape.window_bars)),
        # Every decision is a sample: nothing holds one back.
        "fusion.flip_flop_limit": "0",
        "engine.chat_template": chat_template,
    }
    if tokenizer_file is not None:
        assignments["engine.tokenizer_file"] = str(tokenizer_file)
    return BacktestRequest(
        data=(DEMO,),
        symbol=None,
        interval=None,
        calendar="XNYS",
        price_increment=None,
        currency="USD",
        price_adjustment="none",
        intervals=shape.intervals,
        vision=vision,
        since_ms=None,
        until_ms=until_ms,
        engine=RULES,
        assignments=tuple(f"{name}={value}" for name, value in assignments.items()),
        config=None,
    )


async def _run(request: BacktestRequest, room: Path) -> None:
    """Run the backtest in `room`, or what is left of it."""
    plan = await prepare(request)
    found = read_checkpoint(room)
    checkpoint = found if found is not None and found.fingerprint == plan.fingerprint else Checkpoint(plan.options, plan.fingerprint)
    with RunFolder(room, checkpoint) as files:
        runner = BacktestRunner(
            plan, files, lambda _step: None, lambda: True, engine=lambda clock: RulesEngine(clock, decide, model="chart setups")
        )
        await runner.run()
