"""The freqtrade adapter in the real freqtrade: its resolver, its trades and its exit logic. `make test-adapters` runs it."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from freqtrade.constants import Config
from freqtrade.data.dataprovider import DataProvider
from freqtrade.enums import ExitType, RunMode, SignalDirection
from freqtrade.persistence import Order, Trade, init_db
from freqtrade.resolvers import StrategyResolver
from pandas import DataFrame, date_range

from schemas import Action, Cancel, CancelReason, Signal
from schemas import RunMode as Mode
from schemas.examples import EXAMPLES

EXAMPLE_FILES = Path(__file__).parents[2] / "examples"
PAIR, SYMBOL = "BTC/USDT", "BTC-USDT.BINA"
NOW = datetime.now(UTC)


def signal(number: int = 1, **changes: Any) -> Signal:
    example = EXAMPLES[Signal]
    assert isinstance(example, Signal)
    now_ms = int(datetime.now(UTC).timestamp() * 1_000)
    plain = {
        "run_mode": Mode.LIVE,
        "symbol": SYMBOL,
        "signal_id": UUID(int=number),
        "action": Action.BUY,
        "entry_type": "limit",
        "entry": "100.50",
        "stop": "98.00",
        "target": "103.00",
        "ts_decided_ms": now_ms,
        "valid_until_ms": now_ms + 60_000,
        "horizon_end_ms": now_ms + 600_000,
    }
    return example.model_copy(update=plain | changes)


def cancel(of: Signal) -> Cancel:
    shared = {
        name: getattr(of, name) for name in ("schema_version", "run_mode", "symbol", "interval", "mode", "signal_id", "ts_decided_ms")
    }
    return Cancel(**shared, reason=CancelReason.HALTED)


@pytest.fixture
def strategy(tmp_path: Path) -> Any:
    """Return the strategy as freqtrade loads it from its folder, on an empty database in memory."""
    folder = tmp_path / "strategies"
    folder.mkdir()
    for file in ("adapters/aquiline_freqtrade.py", "consumer/signal_inbox.py"):
        shutil.copy(EXAMPLE_FILES / file, folder)
    init_db("sqlite://")
    config: Config = {
        "strategy": "AquilineSignals",
        "strategy_path": str(folder),
        "user_data_dir": tmp_path,
        "runmode": RunMode.DRY_RUN,
        "trading_mode": "spot",
        "stake_currency": "USDT",
        "stake_amount": 100,
        "dry_run": True,
        "exchange": {"name": "binance"},
        "candle_type_def": "spot",
        "aquiline": {"symbols": {PAIR: SYMBOL}},
    }
    loaded = StrategyResolver.load_strategy(config)
    loaded.dp = DataProvider(config, None)
    loaded.ft_bot_start()
    return loaded


def taken(strategy: Any, *messages: Signal | Cancel) -> None:
    """Have the strategy take in messages, and begin the next iteration."""
    for message in messages:
        strategy.take(message.encode(), int(datetime.now(UTC).timestamp() * 1_000))
    strategy.bot_loop_start(current_time=datetime.now(UTC))


def entry(strategy: Any) -> tuple[Any, str | None]:
    """Return what freqtrade makes of the analysed candles."""
    dates = date_range(end=datetime.now(UTC).replace(second=0, microsecond=0), periods=5, freq="1min")
    prices = dict.fromkeys(("open", "high", "low", "close"), 100.0)
    candles = DataFrame({"date": dates, **prices, "volume": 1.0})
    analysed = strategy.analyze_ticker(candles, {"pair": PAIR})
    found: tuple[Any, str | None] = strategy.get_entry_signal(PAIR, "1m", analysed)
    return found


def confirmed(strategy: Any, tag: str | None, rate: float = 100.0) -> bool:
    return bool(strategy.confirm_trade_entry(PAIR, "limit", 1.0, rate, "GTC", NOW, tag, "long"))


def trade_of(strategy: Any, tag: str | None, *, filled: bool = True) -> Trade:
    """Return a trade with its entry order, as freqtrade stores it."""
    trade = Trade(
        pair=PAIR,
        stake_amount=100,
        amount=1,
        open_rate=100.0,
        open_date=datetime.now(UTC) - timedelta(seconds=1),
        fee_open=0.0,
        fee_close=0.0,
        exchange="binance",
        is_open=True,
        enter_tag=tag,
        is_short=False,
        leverage=1.0,
    )
    order = Order(
        ft_order_side="buy", ft_pair=PAIR, ft_is_open=not filled, ft_amount=1, ft_price=100.0, order_id="1", status="open", side="buy"
    )
    order.order_date = datetime.now(UTC)
    trade.orders.append(order)
    Trade.session.add(trade)
    Trade.commit()
    if filled:
        strategy.order_filled(pair=PAIR, trade=trade, order=order, current_time=datetime.now(UTC))
    return trade


def opened(strategy: Any, number: int = 1, **changes: Any) -> Trade:
    """Have the strategy enter on a signal."""
    taken(strategy, signal(number, **changes))
    direction, tag = entry(strategy)
    assert (direction, tag) == (SignalDirection.LONG, str(UUID(int=number)))
    assert confirmed(strategy, tag)
    return trade_of(strategy, tag)


def test_a_signal_is_entered_once_while_it_is_valid(strategy: Any) -> None:
    given = signal()
    taken(strategy, given, given)
    direction, tag = entry(strategy)
    assert (direction, tag) == (SignalDirection.LONG, str(given.signal_id))
    assert confirmed(strategy, tag)
    assert entry(strategy) == (None, None)
    assert not confirmed(strategy, tag)
    taken(strategy, given)
    assert entry(strategy) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"valid_until_ms": 1},
        {"run_mode": Mode.SHADOW},
        {"symbol": "ETH-USDT.BINA"},
        {"action": Action.SELL, "stop": "103.00", "target": "98.00"},
    ],
)
def test_what_is_not_to_be_acted_on_enters_nothing(strategy: Any, changes: dict[str, Any]) -> None:
    taken(strategy, signal(**changes))
    assert entry(strategy) == (None, None)


def test_a_withdrawn_signal_enters_nothing_and_its_unfilled_order_is_cancelled(strategy: Any) -> None:
    first, second = signal(1), signal(2)
    taken(strategy, first, cancel(first))
    assert entry(strategy) == (None, None)
    taken(strategy, second)
    assert confirmed(strategy, entry(strategy)[1])
    trade = trade_of(strategy, str(second.signal_id), filled=False)
    order = trade.orders[0]
    assert not strategy.ft_check_timed_out(trade, order, datetime.now(UTC))
    taken(strategy, cancel(second))
    assert strategy.ft_check_timed_out(trade, order, datetime.now(UTC))


def test_an_unfilled_order_is_cancelled_when_its_signal_expires(strategy: Any) -> None:
    taken(strategy, signal())
    assert confirmed(strategy, entry(strategy)[1])
    trade = trade_of(strategy, str(UUID(int=1)), filled=False)
    assert strategy.ft_check_timed_out(trade, trade.orders[0], datetime.now(UTC) + timedelta(minutes=2))


def test_the_worst_acceptable_price_holds(strategy: Any) -> None:
    taken(strategy, signal())
    _, tag = entry(strategy)
    assert strategy.custom_entry_price(PAIR, None, NOW, 101.0, tag, "long") == 100.5
    assert strategy.custom_entry_price(PAIR, None, NOW, 100.0, tag, "long") == 100.0
    assert not confirmed(strategy, tag, rate=100.6)


@pytest.mark.parametrize(
    ("rate", "later_s", "kind", "reason"),
    [
        (97.9, 1, ExitType.TRAILING_STOP_LOSS, "trailing_stop_loss"),
        (103.0, 1, ExitType.CUSTOM_EXIT, "aquiline_target"),
        (100.0, 601, ExitType.CUSTOM_EXIT, "aquiline_horizon"),
    ],
)
def test_a_trade_ends_at_stop_target_or_horizon_also_after_a_restart(
    strategy: Any, rate: float, later_s: int, kind: ExitType, reason: str
) -> None:
    trade = opened(strategy)
    strategy.ft_bot_start()  # nothing is known but what is stored
    at = datetime.now(UTC) + timedelta(seconds=later_s)
    assert strategy.should_exit(trade, 100.0, datetime.now(UTC), enter=False, exit_=False) == []
    exits = strategy.should_exit(trade, rate, at, enter=False, exit_=False)
    assert [(one.exit_type, one.exit_reason) for one in exits] == [(kind, reason)]


@pytest.mark.parametrize("action", [Action.EXIT, Action.SELL])
def test_exit_and_the_opposite_signal_close_what_was_opened_before(strategy: Any, action: Action) -> None:
    trade = opened(strategy)
    taken(strategy, signal(2, action=action))
    (found,) = strategy.should_exit(trade, 100.0, datetime.now(UTC), enter=False, exit_=False)
    assert found.exit_reason == f"aquiline_{action.value}"


def test_after_a_restart_no_signal_is_entered_again(strategy: Any) -> None:
    given = signal()
    taken(strategy, given)
    assert confirmed(strategy, entry(strategy)[1])
    trade_of(strategy, str(given.signal_id))
    strategy.ft_bot_start()
    taken(strategy, given)
    assert entry(strategy) == (None, None)
