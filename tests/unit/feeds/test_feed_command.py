"""`aquiline feed` says in a sentence what it cannot do, before it opens anything."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from services.cli.feed import app
from services.core.settings import SettingsError

CCXT = ["ccxt", "--exchange", "binance", "--symbol", "BTC/USDT"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([*CCXT, "--interval", "minute"], "--interval: interval 'minute' is not a number"),
        ([*CCXT, "--option", "proxy"], "--option 'proxy': expected KEY=VALUE"),
        ([*CCXT, "--symbol", "BTC/USDT"], "--symbol: BTC/USDT, BTC/USDT name one symbol twice"),
        (["ccxt", "--exchange", "binance", "--symbol", "BTC/USDT=btc"], "--symbol 'btc' is not a symbol with its venue"),
        ([*CCXT, "--bus", "memory://"], "nobody would read what is published"),
        (["files", "a.csv", "--bus", "memory://"], "nobody would read what is published"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], problem: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SettingsError)
    assert problem in str(result.exception)


def test_the_help_has_an_example_of_each() -> None:
    for name in ("ccxt", "files"):
        result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"})
        assert f"aquiline feed {name}" in result.output
