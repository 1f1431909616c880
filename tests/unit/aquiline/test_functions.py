"""The functions of the Python face give what the services give: the same features, prompts, decisions and outcomes."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import aquiline
from aquiline import aio
from schemas import Instrument, MarketFeatures, Restatement, Topic, topic_name
from services.backtest.backtest_plan import prepare
from services.backtest.checkpoint import AUDIT, LOG
from services.backtest.feed import MODE
from services.backtest.request import DEMO, RECORDED, BacktestRequest
from services.core.bus import Record
from services.core.folding.candles import CandleRules
from services.fusion.service import load_tokenizer
from services.market.books import Books
from services.replay.audit_trail import read_trail_file
from services.replay.log_source import FileLog
from services.replay.prompt_rebuilder import PromptRebuilder
from services.replay.verify_audit import AuditVerifier
from services.strategy.folder import new
from tests.unit.aquiline.frames import SMALL, minutes, small_bars
from tests.unit.backtest.build import run

LAST_WEEK = dt.datetime(2013, 2, 25, tzinfo=dt.UTC)


class Known:
    """Instruments as the market service looks them up."""

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self._by_symbol = {one.symbol: one for one in instruments}

    def get(self, symbol: str) -> Instrument | None:
        return self._by_symbol.get(symbol)

    def restatements(self, symbol: str) -> list[Restatement]:
        del symbol
        return []


def test_features_are_those_that_the_market_service_publishes() -> None:
    bars = small_bars()
    books = Books(Known(bars.data.instruments), CandleRules((MODE,), 1_000_000, 0), {"1m": ["5m"]})
    published: list[MarketFeatures] = []
    for offset, candle in enumerate(sorted(bars.data.candles, key=lambda one: one.ts_close_ms)):
        record = Record(topic_name(Topic.CANDLES, MODE), 0, offset, candle.ts_close_ms, candle.symbol.encode(), candle.encode())
        published += [one for one in books.take(record).features if one.closed]
    frame = aquiline.features(bars, settings=SMALL).set_index(["symbol", "interval", "close_time"])
    assert len(frame) == len(published)
    for one in published:
        row = frame.loc[one.symbol, one.interval, pd.Timestamp(one.ts_close_ms, unit="ms", tz="UTC")]
        assert {name: row[name] for name in one.features} == one.features
        assert row.drop(list(one.features)).filter(regex="^(ema|rsi|atr|macd|bb|ret|vol.*_)").isna().all()


async def test_prompts_have_the_hashes_that_decisions_audit_and_the_replay_of_the_log_has(tmp_path: Path) -> None:
    bars = small_bars()
    prompts = await aio.prompts(bars, settings=SMALL)
    ran = await aio.backtest(bars, settings=SMALL, folder=tmp_path)
    asked = ran.decisions[ran.decisions["prompt_hash"].notna()]
    both = asked.merge(prompts, on=["symbol", "interval", "time", "mode"], suffixes=("", "_of_prompt"))
    assert len(both) == len(asked) > 100
    assert both["prompt_hash"].tolist() == both["prompt_hash_of_prompt"].tolist()
    assert both["prompt_version"].tolist() == both["prompt_version_of_prompt"].tolist()
    assert (prompts["prefix_tokens"] < prompts["prompt_tokens"]).all()
    log = FileLog(tmp_path / LOG, None)
    verifier = AuditVerifier([PromptRebuilder(log.settings, load_tokenizer(log.settings.engine))], log, lambda _: None)
    assert (await verifier.verify(read_trail_file(tmp_path / AUDIT))).all_match


async def test_the_sample_is_decided_as_the_command_decides_it(tmp_path: Path) -> None:
    since_ms = int(LAST_WEEK.timestamp() * 1_000)
    request = BacktestRequest(
        data=(DEMO,),
        symbol=None,
        interval=None,
        calendar="24x7",
        price_increment=None,
        currency="USD",
        price_adjustment="split",
        intervals=None,
        vision=RECORDED,
        since_ms=since_ms,
        until_ms=None,
        engine="rules",
        assignments=(),
        config=None,
    )
    command = await run(await prepare(request), tmp_path)
    decisions = aquiline.decisions(aquiline.sample(library="polars"), since=LAST_WEEK)
    assert isinstance(decisions, pl.DataFrame)
    assert decisions["trigger_id"].to_list() == [str(one.trigger_id) for one in command.audits]
    assert decisions["prompt_hash"].to_list() == [one.prompt_hash for one in command.audits]
    by_id = {str(one.signal_id): one for one in command.signals}
    for row in decisions.filter(pl.col("entry").is_not_null()).iter_rows(named=True):
        signal = by_id[row["signal_id"]]
        assert (row["action"], row["conviction"]) == (signal.action.value, signal.conviction)
        assert [f"{row[name]:.2f}" for name in ("entry", "stop", "target")] == [signal.entry, signal.stop, signal.target]


def test_outcomes_of_decisions_are_those_of_the_backtest() -> None:
    bars = small_bars()
    ran = aquiline.backtest(bars, settings=SMALL)
    assert len(ran.outcomes) > 10
    pd.testing.assert_frame_equal(aquiline.outcomes(ran.decisions, bars, settings=SMALL), ran.outcomes)
    assert "fixed rules" in str(ran)
    assert repr(ran).startswith("<Backtest: ")


def test_signals_of_another_origin_are_judged_by_the_same_rules() -> None:
    times = pd.date_range("2024-01-02", periods=6, freq="1min", tz="UTC")
    prices = [100.0, 100.0, 101.0, 103.0, 103.0, 103.0]
    frame = pd.DataFrame({"time": times, "open": prices, "high": [one + 0.5 for one in prices], "low": prices, "close": prices})
    bars = aquiline.Bars(frame, symbol="BTC-USD.CBSE", price_increment="0.5")
    signal = {
        "symbol": "BTC-USD.CBSE",
        "time": [times[1]],
        "action": "buy",
        "entry": 100.5,
        "stop": 98.0,
        "target": 102.0,
        "horizon_bars": 5,
    }
    free = {"scoring.cost_bps": 0, "scoring.slippage_bps": 0}
    (outcome,) = aquiline.outcomes(pd.DataFrame(signal), bars, settings=free).to_dict("records")
    assert (outcome["entry_time"], outcome["entry"]) == (times[1], 100.0)
    assert (outcome["exit_reason"], outcome["exit"], outcome["bars_held"]) == ("target", 103.0, 2)
    assert outcome["return_net"] == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"action": None}, "there is no column action"),
        ({"symbol": "ETH-USD.CBSE"}, "row 0: symbol is 'ETH-USD.CBSE', of which there are no bars; the bars are of BTC-USD.CBSE"),
        ({"action": "long"}, "row 0: 'long' is not a valid Action"),
        ({"stop": None}, "row 0: stop missing: a signal to buy is judged by its horizon_bars, entry, stop, target"),
        ({"time": [dt.datetime(2024, 1, 2)]}, "row 0: time is 2024-01-02T00:00:00, which has no time zone"),  # noqa: DTZ001
        ({"conviction": 2.0}, "row 0: conviction is 2.0: Input should be less than or equal to 1"),
    ],
)
def test_what_is_wrong_with_a_signal_is_said_with_its_row_and_value(changes: dict[str, Any], said: str) -> None:
    frame = minutes(20)
    bars = aquiline.Bars(frame[frame["symbol"] == "BTC-USD.CBSE"], interval="1m")
    time = frame["time"].iloc[5]
    signal = {"symbol": "BTC-USD.CBSE", "time": [time], "action": "buy", "entry": 1.0, "stop": 0.9, "target": 1.2, "horizon_bars": 5}
    given = {name: value for name, value in (signal | changes).items() if value is not None}
    with pytest.raises(ValueError, match=re.escape(said)):
        aquiline.outcomes(pd.DataFrame(given), bars)


def test_features_of_a_strategy_and_of_the_frame_are_in_the_prompt_that_names_them(tmp_path: Path) -> None:
    new(tmp_path / "momentum", "momentum")
    toml = tmp_path / "momentum" / "strategy.toml"
    fact = '[[facts]]\nnames = ["mood"]\nunit = "number"\nmeaning = "the mood of the news"\n'
    toml.write_text(toml.read_text().replace("[[facts]]", f"{fact}\n[[facts]]", 1))
    frame = minutes().assign(mood=[0.25] * 60 + [float("nan")] * (len(minutes()) - 60))
    bars = aquiline.Bars(frame, interval="1m", features=["mood"])
    intervals = {"fusion.intervals": ["1m"], "fusion.slow_windows": {}}
    features = aquiline.features(bars, strategy=tmp_path / "momentum", settings=intervals)
    assert features["mood"].dropna().unique().tolist() == [0.25]
    assert features["mom_12"].notna().sum() == len(frame) - 2 * 12
    prompts = aquiline.prompts(bars, strategy=tmp_path / "momentum", settings=intervals)
    with_mood, without = (prompts.loc[prompts["symbol"] == symbol, "prompt"].iloc[40] for symbol in bars.symbols)
    assert "mood is the mood of the news;" in with_mood
    assert " mood=0.25" in with_mood
    assert " mood=" not in without
    assert " mom_12=" in with_mood


def test_bars_before_since_are_shown_and_not_asked_about() -> None:
    bars = small_bars()
    since = minutes()["time"].iloc[50].to_pydatetime()
    every, late = (aquiline.prompts(bars, settings=SMALL, since=at) for at in (None, since))
    pd.testing.assert_frame_equal(late, every[every["time"] >= since].reset_index(drop=True))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"engine": "gpt"}, "engine is 'gpt'; 'rules', 'simulator' or the address of an engine"),
        ({"settings": {"fusion.window_barz": 3}}, "fusion.window_barz"),
        ({"settings": {"window_bars": 3}}, "window_bars"),
        ({"strategy": "nowhere"}, "nowhere is not a folder"),
        ({"since": dt.datetime(2024, 1, 2)}, "since is 2024-01-02T00:00:00, which has no time zone"),  # noqa: DTZ001
        ({"since": dt.datetime(2034, 1, 2, tzinfo=dt.UTC)}, "since 2034-01-02: the DataFrame covers 2024-07-01"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_in_a_sentence(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        aquiline.decisions(small_bars(), **arguments)


def test_an_engine_that_does_not_answer_is_an_error_of_its_own() -> None:
    with pytest.raises(aquiline.EngineDownError, match="does not answer"):
        aquiline.decisions(small_bars(), engine="http://127.0.0.1:1", settings=SMALL)


async def test_the_functions_also_work_where_an_event_loop_runs_as_in_a_notebook() -> None:
    bars = small_bars()
    pd.testing.assert_frame_equal(aquiline.decisions(bars, settings=SMALL), await aio.decisions(bars, settings=SMALL))


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    bars = small_bars()
    aquiline.backtest(bars, settings=SMALL, folder=tmp_path / "run")
    with pytest.raises(ValueError, match="holds a run already"):
        aquiline.backtest(bars, settings=SMALL, folder=tmp_path / "run")
