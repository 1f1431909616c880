"""The functions of `aquiline` as coroutines, for programs with an event loop of their own: the same names, arguments and results."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from narwhals.typing import IntoDataFrame

from aquiline._backtest import Backtest
from aquiline._bars import Bars, bars_of
from aquiline._frames import frame_of
from aquiline._results import feature_columns, outcome_columns, prompt_columns
from aquiline._settings import Values, When, plan_of, quiet
from aquiline._signals import messages_of
from schemas import Cancel, Signal, SignalOutcome
from services.backtest.backtest_plan import BacktestPlan
from services.backtest.feed_prompts import prompts_of
from services.backtest.signal_judges import SignalJudges
from services.fusion.service import load_tokenizer
from services.strategy.hooks import HookError

__all__ = ["backtest", "decisions", "features", "outcomes", "prompts"]


async def features(bars: Bars | IntoDataFrame, *, strategy: str | Path | None = None, settings: Values | None = None) -> Any:
    """Do what `aquiline.features` does."""
    return await asyncio.to_thread(_features, bars_of(bars), strategy, settings)


async def prompts(
    bars: Bars | IntoDataFrame,
    *,
    strategy: str | Path | None = None,
    settings: Values | None = None,
    since: When | None = None,
    until: When | None = None,
) -> Any:
    """Do what `aquiline.prompts` does."""
    quiet()
    given = bars_of(bars)
    plan = await asyncio.to_thread(plan_of, given, strategy=strategy, settings=settings, since=since, until=until)
    try:
        found = [one async for one in prompts_of(plan, load_tokenizer(plan.settings.engine))]
    except HookError as error:
        raise ValueError(str(error)) from error
    return frame_of(prompt_columns(found), given.library)


async def decisions(
    bars: Bars | IntoDataFrame,
    *,
    engine: str = "rules",
    strategy: str | Path | None = None,
    settings: Values | None = None,
    since: When | None = None,
    until: When | None = None,
) -> Any:
    """Do what `aquiline.decisions` does."""
    run = await backtest(bars, engine=engine, strategy=strategy, settings=settings, since=since, until=until)
    return run.decisions


async def outcomes(signals: IntoDataFrame, bars: Bars | IntoDataFrame, *, settings: Values | None = None) -> Any:
    """Do what `aquiline.outcomes` does."""
    return await asyncio.to_thread(_outcomes, signals, bars_of(bars), settings)


async def backtest(
    bars: Bars | IntoDataFrame,
    *,
    engine: str = "rules",
    strategy: str | Path | None = None,
    settings: Values | None = None,
    since: When | None = None,
    until: When | None = None,
    folder: str | Path | None = None,
) -> Backtest:
    """Do what `aquiline.backtest` does."""
    quiet()
    given = bars_of(bars)
    plan = await asyncio.to_thread(plan_of, given, engine=engine, strategy=strategy, settings=settings, since=since, until=until)
    if folder is not None:
        return await Backtest.run(plan, Path(folder), given.library)
    with TemporaryDirectory(prefix="aquiline-") as temporary:
        return await Backtest.run(plan, Path(temporary), given.library)


def _features(bars: Bars, strategy: str | Path | None, settings: Values | None) -> Any:
    quiet()
    plan = plan_of(bars, strategy=strategy, settings=settings)
    return frame_of(feature_columns([bar for step in plan.feed.steps() for bar in step.closed]), bars.library)


def _outcomes(signals: IntoDataFrame, bars: Bars, settings: Values | None) -> Any:
    plan = plan_of(bars, settings=settings)
    messages = messages_of(signals, plan.feed.instruments, bars.intervals[0], plan.settings)
    return frame_of(outcome_columns(_judged(plan, messages)), bars.library)


def _judged(plan: BacktestPlan, messages: Iterable[Signal | Cancel]) -> list[SignalOutcome]:
    """Return the outcomes, in the order in which bars and signals become known: a decision comes after the bars of its instant."""
    judges = SignalJudges(plan.settings, plan.feed.instruments, plan.feed.restatements)
    waiting = list(messages)[::-1]
    found: list[SignalOutcome] = []
    for step in plan.feed.steps():
        while waiting and waiting[-1].ts_decided_ms < step.at_ms:
            found += judges.message(waiting.pop())
        found += judges.bars(step.closed)
    for message in reversed(waiting):
        found += judges.message(message)
    return found
