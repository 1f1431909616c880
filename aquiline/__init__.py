"""Aquiline on DataFrames: features, prompts, decisions, outcomes and backtests, by the code that the services run.

    import aquiline

    bars = aquiline.Bars(frame, symbol="BTC-USD.CBSE")
    aquiline.features(bars)
    aquiline.prompts(bars, strategy="momentum")
    aquiline.backtest(bars, engine="http://127.0.0.1:30000", strategy="momentum")

`frame` is a pandas, polars or pyarrow DataFrame, and results are DataFrames of the same library. Every function is a coroutine
too, in `aquiline.aio`. docs/python.md has examples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from narwhals.typing import IntoDataFrame

from aquiline import aio
from aquiline._backtest import Backtest
from aquiline._bars import Bars, sample
from aquiline._settings import Values, When
from aquiline._sync import wait_for
from services.backtest.runner import EngineDownError

__all__ = ["Backtest", "Bars", "EngineDownError", "aio", "backtest", "decisions", "features", "outcomes", "prompts", "sample"]


def features(bars: Bars | IntoDataFrame, *, strategy: str | Path | None = None, settings: Values | None = None) -> Any:
    """Return the features of every bar, as the market service computes them.

    One row a bar, by the time of its close, and a few more where slower bars are built from faster ones (`market.aggregate`, or the
    intervals of `strategy`): `symbol`, `interval`, `time` (open), `close_time`, the prices, `volume`, and a float column for
    each feature, NaN or null where it is not defined yet. `strategy` is a strategy's folder, whose `features.py` adds its own; so do
    the columns that `Bars(features=...)` names. Units are those of docs/messages.md: `atr` and `macd_hist` are price differences,
    `ret_1` a fraction.

    `settings` are settings by dotted name (docs/configuration.md), such as `{"fusion.window_bars": 64}`. Raises ValueError for a
    setting, strategy or frame that is wrong.
    """
    return wait_for(aio.features(bars, strategy=strategy, settings=settings))


def prompts(
    bars: Bars | IntoDataFrame,
    *,
    strategy: str | Path | None = None,
    settings: Values | None = None,
    since: When | None = None,
    until: When | None = None,
) -> Any:
    """Return the exact prompt of every trigger, without asking an engine.

    One row a trigger: `symbol`, `interval`, `time` (close of the bar), `mode`, `trigger`, `prompt` (text, special tokens by
    their names), `prompt_tokens`, `prefix_tokens` (the part that only grows within an `epoch`), `prompt_version`, `prompt_hash`
    (SHA-256 of the token ids, as in signals and audit) and `epoch`. Bars before `since` are history: shown, and not asked about.
    A prompt of daily bars takes some 20 KB: name `since` for long histories.

    `since` and `until` are times with a zone, or milliseconds since 1970; the other arguments are those of `features`. Tokens are
    counted by the simulator's tokenizer unless `settings` name `engine.tokenizer_file`.
    """
    return wait_for(aio.prompts(bars, strategy=strategy, settings=settings, since=since, until=until))


def decisions(
    bars: Bars | IntoDataFrame,
    *,
    engine: str = "rules",
    strategy: str | Path | None = None,
    settings: Values | None = None,
    since: When | None = None,
    until: When | None = None,
) -> Any:
    """Return how every trigger ends: the worker plays the bars on a virtual clock, which stands still while `engine` answers.

    `engine` is `rules` (fixed rules, no model and no skill), `simulator`, or the address of an engine, whose kind and tokenizer
    `settings` name: `{"engine.kind": "sglang", "engine.tokenizer_file": "tokenizer.json"}`. To decide on the last bar alone, let
    `since` be its close.

    One row a trigger. `outcome` is `published`, `blocked`, `stale`, `conflated` or `failed`, with `reason` and `detail`; what was
    published has `action`, `conviction` (0 to 1), `horizon_bars`, `entry_type`, `entry`, `stop`, `target` (prices on the tick),
    `p_buy` to `p_hold` where the engine gives probabilities, `valid_until`, and `cancelled` where it was withdrawn. `answer`,
    `prompt_version`, `prompt_hash` and the ids are those of signal and audit.

    The other arguments are those of `prompts`. Raises ValueError, and EngineDownError when the engine does not answer.
    """
    return wait_for(aio.decisions(bars, engine=engine, strategy=strategy, settings=settings, since=since, until=until))


def outcomes(signals: IntoDataFrame, bars: Bars | IntoDataFrame, *, settings: Values | None = None) -> Any:
    """Return what the market did after each signal to buy or sell, by the scorer's own judge (docs/scoring.md).

    `signals` are those of `decisions`, or your own: a DataFrame with `symbol`, `time` (close of the last bar that the signal rests on),
    `action` (`buy`, `sell`, `exit`, `hold`), and, to buy or sell, `entry` (the worst price to open at), `stop`, `target` and
    `horizon_bars`. Optional: `conviction` (0 to 1), `entry_type` (`market` or `limit`), `valid_until`, `interval`, `signal_id`.

    One row a signal whose outcome the bars show: `entry_time`, `exit_time`, `entry`, `exit`, `exit_reason`, `return_net` (a fraction of
    the entry price, after `scoring.cost_bps` and `scoring.slippage_bps`), `max_favourable`, `max_adverse`, `bars_held`. A position
    opens in the bar after the signal. Raises ValueError, naming row and column, for a signal that cannot be judged.
    """
    return wait_for(aio.outcomes(signals, bars, settings=settings))


def backtest(
    bars: Bars | IntoDataFrame,
    *,
    engine: str = "rules",
    strategy: str | Path | None = None,
    settings: Values | None = None,
    since: When | None = None,
    until: When | None = None,
    folder: str | Path | None = None,
) -> Backtest:
    """Return decisions, their outcomes and the report, as `aquiline backtest` makes them.

    `folder` keeps the run's files, which `aquiline replay --verify` and `aquiline score report` read; a temporary folder is deleted. The
    other arguments, and what is raised, are those of `decisions`.
    """
    return wait_for(aio.backtest(bars, engine=engine, strategy=strategy, settings=settings, since=since, until=until, folder=folder))
