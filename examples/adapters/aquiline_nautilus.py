"""A NautilusTrader strategy that trades Aquiline's signals: each once, while it is valid, and none that was withdrawn.

Put this file and `signal_inbox.py` beside your node, install the messages (`pip install --no-deps aquiline`, `pip install aiokafka
orjson pydantic`), and add to the node's trader:

    sizes, ids = {"BTC-USDT.BINA": "0.010"}, {"BTC-USDT.BINA": "BTCUSDT.BINANCE"}
    AquilineSignals(AquilineSignalsConfig(instruments=ids, trade_sizes=sizes, bootstrap="127.0.0.1:9092"))

A signal becomes a bracket: a limit order at its worst acceptable price until it expires, with its stop and target behind it. The client
order id of the entry is the signal's id, so that no venue takes it twice. For a Kafka with TLS or log-in set the variables that
`signal_inbox.security` reads, such as `AQUILINE_BUS__SECURITY=sasl_ssl`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from nautilus_trader.model.enums import OrderSide, OrderType, TimeInForce
from nautilus_trader.model.identifiers import ClientOrderId, InstrumentId
from nautilus_trader.trading.config import StrategyConfig
from nautilus_trader.trading.strategy import Strategy
from signal_inbox import Act, SignalInbox, Step, Withdraw, follow

from schemas import Action, RunMode, Signal


class AquilineSignalsConfig(StrategyConfig, frozen=True):
    """What to trade, and where the signals come from."""

    instruments: dict[str, str]
    """Instrument ids by Aquiline's symbols."""
    trade_sizes: dict[str, str]
    """Quantity of an entry, by symbol, in the instrument's units."""
    bootstrap: str | None = None
    """Kafka's address; None to follow nothing, in a backtest."""
    topic: str = "strategy-signals"
    """`shadow.strategy-signals`, with `run_mode` `shadow`, for a candidate's."""
    run_mode: str = "live"
    group: str = "nautilus"


class AquilineSignals(Strategy):
    """Enters on `buy` and `sell`, and leaves at stop, target, the horizon's end, `exit` or the opposite signal."""

    def __init__(self, config: AquilineSignalsConfig) -> None:
        """Take the settings."""
        super().__init__(config)
        self.inbox = SignalInbox(run_mode=RunMode(config.run_mode))
        self._following: asyncio.Task[None] | None = None

    def on_start(self) -> None:
        """Follow the topic; signals whose orders are in the cache, from before a restart, are known."""
        known = [found for order in self.cache.orders(strategy_id=self.id) if (found := _uuid(order.client_order_id.value)) is not None]
        self.inbox = SignalInbox(known, RunMode(self.config.run_mode))
        if self.config.bootstrap is not None:
            self._following = asyncio.get_running_loop().create_task(self._follow(self.config.bootstrap))

    def on_stop(self) -> None:
        """Stop following, and cancel what is not filled. Positions keep their stop and target at the venue."""
        if self._following is not None:
            self._following.cancel()
        for name in self.config.instruments.values():
            for order in self.cache.orders_open(instrument_id=InstrumentId.from_str(name), strategy_id=self.id):
                if not order.is_reduce_only:
                    self.cancel_order(order)

    async def _follow(self, bootstrap: str) -> None:
        while True:
            try:
                async for step in follow(bootstrap, self.config.topic, self.config.group, self.inbox):
                    self.on_step(step)
            except Exception as error:  # noqa: BLE001 - whatever happens, signals are read again
                self.log.error(f"Aquiline's signals cannot be read, trying again: {error}")
                await asyncio.sleep(1)

    def take(self, value: bytes) -> None:
        """Take a record of the topic, at the clock's time."""
        self.on_step(self.inbox.take(value, self.clock.timestamp_ms()))

    def on_step(self, step: Step) -> None:
        """Do what the inbox says."""
        if isinstance(step, Withdraw):
            self._withdraw(step.signal)
        elif isinstance(step, Act) and step.signal.symbol in self.config.instruments:
            self._act(step.signal)

    def _withdraw(self, signal: Signal) -> None:
        order = self.cache.order(ClientOrderId(str(signal.signal_id)))
        if order is not None and not order.is_closed:
            self.cancel_order(order)

    def _act(self, signal: Signal) -> None:
        name = InstrumentId.from_str(self.config.instruments[signal.symbol])
        long, short = self.portfolio.is_net_long(name), self.portfolio.is_net_short(name)
        if (signal.action is Action.BUY and long) or (signal.action is Action.SELL and short):
            return  # what the signal wants held is held
        self.cancel_all_orders(name)
        if long or short:
            self.close_all_positions(name)
        if signal.action is not Action.EXIT:
            self._enter(signal, name)

    def _enter(self, signal: Signal, name: InstrumentId) -> None:
        instrument = self.cache.instrument(name)
        if instrument is None or signal.entry is None or signal.stop is None or signal.target is None:
            self.log.error(f"No instrument {name}, or a signal without prices: {signal.signal_id}")
            return
        bracket = self.order_factory.bracket(
            instrument_id=name,
            order_side=OrderSide.BUY if signal.action is Action.BUY else OrderSide.SELL,
            quantity=instrument.make_qty(Decimal(self.config.trade_sizes[signal.symbol])),
            entry_order_type=OrderType.LIMIT,
            entry_price=instrument.make_price(Decimal(signal.entry)),
            time_in_force=TimeInForce.GTD,
            expire_time=_at(signal.valid_until_ms),
            entry_client_order_id=ClientOrderId(str(signal.signal_id)),
            tp_price=instrument.make_price(Decimal(signal.target)),
            tp_post_only=False,
            sl_trigger_price=instrument.make_price(Decimal(signal.stop)),
        )
        self.submit_order_list(bracket)
        if signal.horizon_end_ms is not None:
            self.clock.set_time_alert(f"horizon-{signal.signal_id}", _at(signal.horizon_end_ms), lambda _: self._end(signal, name))

    def _end(self, signal: Signal, name: InstrumentId) -> None:
        """Close the position that was opened on the signal, if it is still open."""
        opened_by = ClientOrderId(str(signal.signal_id))
        for position in self.cache.positions_open(instrument_id=name, strategy_id=self.id):
            if position.opening_order_id == opened_by:
                self.cancel_all_orders(name)
                self.close_position(position)


def _at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1_000, UTC)


def _uuid(text: Any) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
