"""The NautilusTrader adapter in NautilusTrader's own backtest engine, against its simulated exchange. `make test-adapters` runs it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from aquiline_nautilus import AquilineSignals, AquilineSignalsConfig
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.config import LoggingConfig
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import AccountType, OmsType, OrderStatus
from nautilus_trader.model.identifiers import ClientOrderId, TraderId, Venue
from nautilus_trader.model.objects import Money
from nautilus_trader.test_kit.providers import TestInstrumentProvider

from schemas import Action, Cancel, CancelReason, RunMode, Signal
from schemas.examples import EXAMPLES

SYMBOL = "BTC-USDT.BINA"
INSTRUMENT = TestInstrumentProvider.btcusdt_perp_binance()
START = datetime(2024, 7, 1, tzinfo=UTC)
SHORT = {"action": Action.SELL, "entry": "59990.0", "stop": "60600.0", "target": "59400.0"}


def ms(second: float) -> int:
    return int((START + timedelta(seconds=second)).timestamp() * 1_000)


def signal(number: int = 1, second: float = 10, **changes: Any) -> Signal:
    example = EXAMPLES[Signal]
    assert isinstance(example, Signal)
    plain = {
        "run_mode": RunMode.LIVE,
        "symbol": SYMBOL,
        "signal_id": UUID(int=number),
        "action": Action.BUY,
        "entry": "60010.0",
        "stop": "59400.0",
        "target": "60600.0",
        "ts_decided_ms": ms(second),
        "valid_until_ms": ms(second + 5),
        "horizon_end_ms": ms(second + 300),
    }
    return example.model_copy(update=plain | changes)


def cancel(of: Signal) -> Cancel:
    shared = {
        name: getattr(of, name) for name in ("schema_version", "run_mode", "symbol", "interval", "mode", "signal_id", "ts_decided_ms")
    }
    return Cancel(**shared, reason=CancelReason.HALTED)


class Played(AquilineSignals):
    """The adapter, given records at moments of the backtest's clock instead of Kafka's."""

    def __init__(self, config: AquilineSignalsConfig, records: Sequence[tuple[float, bytes]]) -> None:
        super().__init__(config)
        self._records = records

    def on_start(self) -> None:
        super().on_start()
        for number, (second, value) in enumerate(self._records):
            at = START + timedelta(seconds=second)
            self.clock.set_time_alert(f"record-{number}", at, lambda _, value=value: self.take(value))


class Ran:
    """What a backtest left."""

    def __init__(self, engine: BacktestEngine) -> None:
        self._cache = engine.cache
        self.entries = {number: self._cache.order(ClientOrderId(str(UUID(int=number)))) for number in range(1, 4)}
        self.positions = self._cache.positions_open() + self._cache.positions_closed()
        self.open_orders = self._cache.orders_open()

    def closes(self) -> list[float]:
        """Return the seconds at which positions were closed."""
        return [(position.ts_closed / 1e9) - START.timestamp() for position in self.positions if position.is_closed]


def run(
    records: Sequence[tuple[float, Signal | Cancel]], prices: Sequence[tuple[float, float]], *, symbols: Sequence[str] = (SYMBOL,)
) -> Ran:
    """Play records and quotes, each at its second; the price stays between two quotes."""
    engine = BacktestEngine(BacktestEngineConfig(trader_id=TraderId("TEST-001"), logging=LoggingConfig(bypass_logging=True)))
    engine.add_venue(Venue("BINANCE"), OmsType.NETTING, AccountType.MARGIN, [Money(1_000_000, USDT)], base_currency=None)
    engine.add_instrument(INSTRUMENT)
    quotes = []
    for second in range(600):
        price = [price for at, price in prices if at <= second][-1]
        at_ns = ms(second) * 1_000_000
        bid, ask = INSTRUMENT.make_price(price - 0.5), INSTRUMENT.make_price(price + 0.5)
        size = INSTRUMENT.make_qty(Decimal(100))
        quotes.append(QuoteTick(INSTRUMENT.id, bid, ask, size, size, at_ns, at_ns))
    engine.add_data(quotes)
    config = AquilineSignalsConfig(instruments=dict.fromkeys(symbols, str(INSTRUMENT.id)), trade_sizes=dict.fromkeys(symbols, "0.010"))
    engine.add_strategy(Played(config, [(second, message.encode()) for second, message in records]))
    engine.run()
    ran = Ran(engine)
    engine.dispose()
    return ran


FLAT = [(0, 60_000.0)]


def test_a_signal_becomes_one_bracket_that_is_filled_at_no_worse_than_its_entry() -> None:
    given = signal()
    ran = run([(10.5, given), (11, given), (12, given)], FLAT)
    (position,) = ran.positions
    assert ran.entries[1].status is OrderStatus.FILLED
    assert float(ran.entries[1].avg_px) <= 60_010.0
    assert position.peak_qty == Decimal("0.010")


@pytest.mark.parametrize(
    ("prices", "second"),
    [([(0, 60_000.0), (60, 59_300.0)], 60), ([(0, 60_000.0), (90, 60_700.0)], 90), (FLAT, 310)],
    ids=["low", "high", "horizon"],
)
@pytest.mark.parametrize("changes", [{}, SHORT], ids=["long", "short"])
def test_a_position_ends_at_stop_target_or_horizon_and_leaves_no_order(
    prices: list[tuple[float, float]], second: float, changes: dict[str, Any]
) -> None:
    ran = run([(10.5, signal(**changes))], prices)
    (closed,) = ran.closes()
    assert closed == pytest.approx(second, abs=1)
    assert ran.open_orders == []


def test_an_entry_that_is_not_filled_expires_with_its_signal() -> None:
    ran = run([(10.5, signal(entry="59900.0"))], [(0, 60_000.0), (20, 59_800.0)])
    assert ran.entries[1].status is OrderStatus.EXPIRED
    assert ran.positions == ran.open_orders == []


def test_a_withdrawn_signal_is_not_filled_and_a_filled_one_is_kept() -> None:
    waiting = signal(1, entry="59900.0")
    ran = run([(10.5, waiting), (11, cancel(waiting))], [(0, 60_000.0), (12, 59_800.0)])
    assert ran.entries[1].status is OrderStatus.CANCELED
    assert ran.positions == ran.open_orders == []
    filled = signal(2)
    ran = run([(10.5, filled), (12, cancel(filled))], FLAT)
    assert ran.entries[2].status is OrderStatus.FILLED
    assert ran.closes() == [pytest.approx(310, abs=1)]


@pytest.mark.parametrize(
    "changes", [{"valid_until_ms": 1}, {"run_mode": RunMode.SHADOW}, {"symbol": "ETH-USDT.BINA"}, {"action": Action.HOLD}]
)
def test_what_is_not_to_be_acted_on_places_no_order(changes: dict[str, Any]) -> None:
    assert run([(10.5, signal(**changes))], FLAT).entries[1] is None


def test_exit_closes_and_the_opposite_signal_turns_the_position() -> None:
    leave = signal(2, second=40, action=Action.EXIT, entry=None, stop=None, target=None)
    ran = run([(10.5, signal()), (40.5, leave)], FLAT)
    assert ran.closes() == [pytest.approx(40.5, abs=1)]
    assert ran.open_orders == []
    turned = run([(10.5, signal()), (40.5, signal(3, second=40, **SHORT))], FLAT)
    assert turned.entries[3].status is OrderStatus.FILLED
    assert turned.closes()[-1] == pytest.approx(340, abs=1)
    assert turned.open_orders == []


def test_a_signal_for_what_is_held_already_places_no_order() -> None:
    ran = run([(10.5, signal()), (40.5, signal(2, second=40))], FLAT)
    assert ran.entries[2] is None
    assert len(ran.positions) == 1
