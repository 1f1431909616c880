"""Files that were read wrongly before: each is read right, or refused in words that its owner understands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from schemas import AuditRecord, SignalOutcome
from services.cli.backtest import app
from services.cli.replay import app as replay
from services.core.settings import SettingsError
from services.feeds.files import FileError, read_candles
from services.feeds.price_increment import infer_increment
from services.feeds.read_options import utc
from tests.cases.layouts import options

FOLDER: Final = Path(__file__).parent
STOCK: Final = {"symbol": "AAPL.XNAS", "calendar": "XNYS"}
BTC: Final = {"symbol": "BTC-USDT.BINA"}


@pytest.mark.parametrize(
    ("file", "given", "bars", "opens", "closes"),
    [
        ("lookahead_1h.csv", {"symbol": "EUR-USD.FX"}, 150, "2024-06-01T00:00Z", "2024-06-07T06:00Z"),
        ("lookahead_1d_21z.csv", {"symbol": "EUR-USD.FX"}, 5, "2024-06-01T21:00Z", "2024-06-06T21:00Z"),
        ("hourly_half_past.csv", {**STOCK, "interval": "1h"}, 14, "2024-07-01T13:30Z", "2024-07-02T20:00Z"),
        ("hourly_half_past.csv", {"symbol": "AAPL.XNAS", "interval": "1h"}, 14, "2024-07-01T13:30Z", "2024-07-02T20:30Z"),
        ("yyyymmdd.csv", {**BTC, "interval": "1d"}, 3, "2024-01-02T00:00Z", "2024-01-05T00:00Z"),
        ("yyyymmdd.csv", {**STOCK, "interval": "1d"}, 3, "2024-01-02T14:30Z", "2024-01-04T21:00Z"),
        ("date_and_time.csv", {**BTC, "interval": "1m"}, 3, "2024-01-02T09:30Z", "2024-01-03T09:31Z"),
        ("date_and_time.csv", {**STOCK, "interval": "1m"}, 3, "2024-01-02T14:30Z", "2024-01-03T14:31Z"),
        ("shib_1h.csv", {"symbol": "SHIB-USDT.BINA"}, 150, "2024-06-01T00:00Z", "2024-06-07T06:00Z"),
        ("eurusd_1h.csv", {"symbol": "EUR-USD.FX"}, 150, "2024-06-01T00:00Z", "2024-06-07T06:00Z"),
        ("before_1990.csv", {**STOCK, "interval": "1d"}, 3, "1989-12-28T14:30Z", "1990-01-02T21:00Z"),
        ("before_1990.csv", {"symbol": "AAPL.XNAS", "interval": "1d"}, 3, "1989-12-28T00:00Z", "1990-01-03T00:00Z"),
        ("unadjusted_split.csv", {**BTC, "interval": "1h"}, 90, "2024-06-01T00:00Z", "2024-06-04T18:00Z"),
        ("pandas_daily.parquet", {**STOCK, "interval": "1d"}, 2, "2024-07-01T13:30Z", "2024-07-02T20:00Z"),
        ("plain_midnight.csv", {**STOCK, "interval": "1d"}, 2, "2024-07-01T13:30Z", "2024-07-02T20:00Z"),
        ("rounding.csv", {**STOCK, "interval": "1d"}, 1, "2024-07-02T13:30Z", "2024-07-02T20:00Z"),
        ("microseconds.csv", {**BTC, "interval": "1m"}, 2, "2025-01-01T00:00Z", "2025-01-01T00:02Z"),
        ("ccxt_symbol.csv", {**BTC, "interval": "1m"}, 1, "2024-07-01T13:30Z", "2024-07-01T13:31Z"),
        ("binance_no_header.csv", BTC, 2, "2024-12-31T00:00Z", "2024-12-31T00:02Z"),
    ],
)
def test_a_file_is_read_with_every_bar_at_its_own_time(file: str, given: dict[str, Any], bars: int, opens: str, closes: str) -> None:
    got = read_candles(FOLDER / file, options(given)).candles
    assert (len(got), utc(got[0].ts_open_ms), utc(got[-1].ts_close_ms)) == (bars, opens, closes)


def test_half_past_stays_half_past() -> None:
    got = read_candles(FOLDER / "hourly_half_past.csv", options({**STOCK, "interval": "1h"})).candles
    assert [utc(bar.ts_open_ms)[11:16] for bar in got[:7]] == ["13:30", "14:30", "15:30", "16:30", "17:30", "18:30", "19:30"]
    assert [utc(bar.ts_close_ms)[11:16] for bar in got[:7]] == ["14:30", "15:30", "16:30", "17:30", "18:30", "19:30", "20:00"]


@pytest.mark.parametrize(
    ("file", "given", "problem"),
    [
        ("dup_header.csv", BTC, r"dup_header\.csv: the header names 'close' \(column 5\) and 'close' \(column 7\)"),
        ("damaged.csv.gz", {**BTC, "interval": "1m"}, r"damaged\.csv\.gz is damaged: it cannot be decompressed"),
        (
            "before_1990.csv",
            {"symbol": "7203.XTKS", "calendar": "XTKS", "interval": "1d"},
            r"before_1990\.csv, line 2: Date is .1989-12-28.: calendar XTKS is known from 1997-01-06T00:00Z until .*1989-12-28 lies",
        ),
        (
            "ccxt_symbol.csv",
            {"symbol": "ETH-USDT.BINA", "interval": "1m"},
            r"line 2: symbol is 'BTC/USDT:USDT', and --symbol ETH-USDT.BINA",
        ),
    ],
)
def test_a_file_is_refused_in_its_owners_words(file: str, given: dict[str, Any], problem: str) -> None:
    with pytest.raises(FileError, match=problem):
        read_candles(FOLDER / file, options(given))


@pytest.mark.parametrize(("file", "increment"), [("shib_1h.csv", "0.00000001"), ("eurusd_1h.csv", "0.00001")])
def test_a_price_has_as_many_digits_as_it_has(file: str, increment: str) -> None:
    assert infer_increment(read_candles(FOLDER / file, options(BTC)).candles).text == increment


@pytest.mark.parametrize(
    ("file", "symbol", "tick", "digits"),
    [("eurusd_1h.csv", "EUR-USD.FX", "0.00001", 5), ("shib_1h.csv", "SHIB-USDT.BINA", "0.00000001", 8)],
)
def test_a_prompt_tells_the_averages_of_a_small_price_apart(tmp_path: Path, file: str, symbol: str, tick: str, digits: int) -> None:
    last = run(tmp_path, "--data", str(FOLDER / file), "--symbol", symbol, "--price-increment", tick)[-1]
    asked = ["--audit", str(tmp_path / "audit.jsonl"), "--log", str(tmp_path / "log.jsonl.gz"), "--show", str(last.trigger_id)]
    shown = CliRunner().invoke(replay, asked, env={"COLUMNS": "300"})
    assert shown.exit_code == 0, shown.output
    facts = {name: re.search(rf"\b{name}=(\d+\.\d+)", shown.output) for name in ("atr", "ema_fast", "ema_slow")}
    found = {name: match[1] for name, match in facts.items() if match is not None}
    assert found.keys() == facts.keys()
    assert all(len(text.partition(".")[2]) >= digits and float(text) > 0 for text in found.values())
    assert found["ema_fast"] != found["ema_slow"]


def run(folder: Path, *arguments: str) -> list[AuditRecord]:
    """Run a backtest with fixed rules and return its audit."""
    asked = ["--engine", "rules", "--folder", str(folder), *arguments]
    done = CliRunner().invoke(app, asked, env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    return [AuditRecord.decode(line) for line in (folder / "audit.jsonl").read_bytes().splitlines()]


def test_a_prompt_shows_no_daily_bar_that_is_not_over(tmp_path: Path) -> None:
    data = ["--data", str(FOLDER / "lookahead_1h.csv"), "--data", str(FOLDER / "lookahead_1d_21z.csv"), "--symbol", "EUR-USD.FX"]
    span = ["--since", "2024-06-06T00:00", "--until", "2024-06-06T12:00", "--set", "fusion.epoch_slots=2"]
    last = run(tmp_path, *data, *span, "--price-increment", "0.00001")[-1]
    asked = ["--audit", str(tmp_path / "audit.jsonl"), "--log", str(tmp_path / "log.jsonl.gz"), "--show", str(last.trigger_id)]
    shown = CliRunner().invoke(replay, asked)
    assert shown.exit_code == 0, shown.output
    assert "1.04357" in shown.output
    assert "1.09665" not in shown.output


def test_nothing_is_decided_on_prices_that_hold_an_unadjusted_split(tmp_path: Path) -> None:
    audit = run(tmp_path, "--data", str(FOLDER / "unadjusted_split.csv"), "--symbol", "BTC-USD.CBSE", "--interval", "1h")
    outcomes = [SignalOutcome.decode(line) for line in (tmp_path / "outcomes.jsonl").read_bytes().splitlines()]
    assert max(abs(one.return_net) for one in outcomes if one.return_net is not None) < 0.02
    assert sum(one.unscored_reason == "suspected_split" for one in outcomes) == 7
    reasons = [one.reason for one in audit]
    assert reasons.count("suspected_split") == 30
    assert set(reasons[reasons.index("suspected_split") :]) == {"suspected_split"}


def test_a_backtest_shows_the_increment_that_it_found_and_refuses_one_that_does_not_fit(tmp_path: Path) -> None:
    asked = ["--data", str(FOLDER / "shib_1h.csv"), "--symbol", "SHIB-USDT.BINA", "--interval", "1h", "--engine", "rules", "--folder"]
    done = CliRunner().invoke(app, [*asked, str(tmp_path / "a")], env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    assert "SHIB-USDT.BINA: price increment 0.00000001" in done.output
    refused = CliRunner().invoke(app, [*asked, str(tmp_path / "b"), "--price-increment", "0.01"])
    assert isinstance(refused.exception, SettingsError)
    assert "0.01 does not fit" in str(refused.exception)
    assert str(refused.exception).endswith("use 0.00000001")


def test_an_unadjusted_split_blocks_to_the_end_of_the_file(tmp_path: Path) -> None:
    asked = ["--data", str(FOLDER / "unadjusted_split.csv"), "--symbol", "ACME.XNAS", "--interval", "1h", "--price-increment", "0.01"]
    done = CliRunner().invoke(app, [*asked, "--engine", "rules", "--folder", str(tmp_path)], env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    reasons = [json.loads(line).get("reason") for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert reasons.index("suspected_split") == 60
    assert set(reasons[60:]) == {"suspected_split"}
    assert len(reasons) == 90
