"""A freqtrade strategy that trades Aquiline's signals: each once, while it is valid, and none that was withdrawn.

Put this file and `signal_inbox.py` into `user_data/strategies`, install the messages beside freqtrade (`pip install --no-deps aquiline`,
`pip install aiokafka`), and add to `config.json`:

    "strategy": "AquilineSignals",
    "internals": {"process_throttle_secs": 1},
    "aquiline": {"bootstrap": "127.0.0.1:9092", "symbols": {"BTC/USDT": "BTC-USDT.BINA"}}

Further keys of `aquiline`: `topic` (`strategy-signals`), `run_mode` (`live`), `group` (`freqtrade`). A dry run can follow a candidate:
`shadow.strategy-signals` with `shadow`. Signals of a bar of a minute are valid for three seconds: hence the throttle.
For a Kafka with TLS or log-in set the variables that `signal_inbox.security` reads, such as `AQUILINE_BUS__SECURITY=sasl_ssl`.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

from freqtrade.persistence import Order, Trade
from freqtrade.strategy import IStrategy, stoploss_from_absolute
from pandas import DataFrame
from signal_inbox import Act, SignalInbox, Step, Withdraw, follow

from schemas import Action, RunMode, Signal

logger = logging.getLogger(__name__)


class AquilineSignals(IStrategy):
    """Enters on `buy` (and `sell`, where shorting is on), and leaves at stop, target, the horizon's end, `exit` or the opposite signal."""

    INTERFACE_VERSION = 3
    timeframe = "1m"
    can_short = False
    process_only_new_candles = False
    """A signal does not wait for the next candle."""
    minimal_roi: ClassVar[dict[str, float]] = {}
    stoploss = -0.1
    """The hard limit, for a trade whose signal is not known any more; the signal's own stop is nearer."""
    use_custom_stoploss = True
    startup_candle_count = 0

    def bot_start(self, **kwargs: Any) -> None:
        """Read the settings, and follow the topic in a thread of its own."""
        given = self.config.get("aquiline", {})
        self._symbols: dict[str, str] = given.get("symbols", {})
        self._pairs = {symbol: pair for pair, symbol in self._symbols.items()}
        self._entries: dict[str, Signal] = {}
        """By pair, the signal to enter on."""
        self._closing: dict[str, Signal] = {}
        """By pair, the last signal that closes what was opened before it."""
        self._known: dict[str, Signal] = {}
        """By enter tag, signals that orders were placed on."""
        self._withdrawn: set[str] = set()
        self._steps: queue.SimpleQueue[Step] = queue.SimpleQueue()
        run_mode = RunMode(given.get("run_mode", "live"))
        self.inbox = SignalInbox(_ids(trade.enter_tag for trade in Trade.get_trades_proxy()), run_mode)
        if "bootstrap" in given:
            source = given["bootstrap"], given.get("topic", "strategy-signals"), given.get("group", "freqtrade")
            threading.Thread(target=lambda: asyncio.run(self._follow(*source)), name="aquiline", daemon=True).start()

    async def _follow(self, bootstrap: str, topic: str, group: str) -> None:
        while True:
            try:
                async for step in follow(bootstrap, topic, group, self.inbox):
                    self._steps.put(step)
            except Exception:
                logger.exception("Aquiline's signals cannot be read; trying again")
                await asyncio.sleep(1)

    def take(self, value: bytes, now_ms: int) -> None:
        """Take a record of the topic; the thread does this with Kafka's."""
        self._steps.put(self.inbox.take(value, now_ms))

    def bot_loop_start(self, current_time: datetime, **kwargs: Any) -> None:
        """Take in what has come since the last iteration."""
        while not self._steps.empty():
            step = self._steps.get()
            if isinstance(step, Withdraw):
                self._withdrawn.add(str(step.signal.signal_id))
                pair = self._pairs.get(step.signal.symbol)
                if pair is not None and self._entries.get(pair) == step.signal:
                    del self._entries[pair]
            elif isinstance(step, Act) and (pair := self._pairs.get(step.signal.symbol)) is not None:
                self._closing[pair] = step.signal
                if step.signal.action is Action.EXIT:
                    self._entries.pop(pair, None)
                else:
                    self._entries[pair] = step.signal

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Compute nothing: the model has seen the market."""
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Mark the last candle of a pair with a valid signal."""
        signal = self._valid(metadata["pair"], datetime.now(UTC))
        dataframe["enter_long"] = dataframe["enter_short"] = 0
        dataframe["enter_tag"] = None
        if signal is not None and len(dataframe):
            side = "enter_long" if signal.action is Action.BUY else "enter_short"
            dataframe.loc[dataframe.index[-1], side] = 1
            dataframe.loc[dataframe.index[-1], "enter_tag"] = str(signal.signal_id)
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        """Leave exits to `custom_exit`, which knows when the trade was opened."""
        dataframe["exit_long"] = dataframe["exit_short"] = 0
        return dataframe

    def custom_entry_price(
        self, pair: str, trade: Trade | None, current_time: datetime, proposed_rate: float, entry_tag: str | None, side: str, **kwargs: Any
    ) -> float:
        """Return the proposed rate, or the signal's worst acceptable price where that is better."""
        signal = self._entries.get(pair)
        if signal is None or signal.entry is None:
            return proposed_rate
        limit = float(signal.entry)
        return min(proposed_rate, limit) if side == "long" else max(proposed_rate, limit)

    def confirm_trade_entry(
        self,
        pair: str,
        order_type: str,
        amount: float,
        rate: float,
        time_in_force: str,
        current_time: datetime,
        entry_tag: str | None,
        side: str,
        **kwargs: Any,
    ) -> bool:
        """Place the order only while the signal is valid, once, and not beyond its worst acceptable price."""
        signal = self._valid(pair, datetime.now(UTC))
        if signal is None or str(signal.signal_id) != entry_tag or signal.entry is None:
            return False
        if rate > float(signal.entry) if side == "long" else rate < float(signal.entry):
            return False
        self._known[entry_tag] = self._entries.pop(pair)
        return True

    def check_entry_timeout(self, pair: str, trade: Trade, order: Order, current_time: datetime, **kwargs: Any) -> bool:
        """Cancel an unfilled entry whose signal was withdrawn or has expired."""
        signal = self._known.get(trade.enter_tag or "")
        return trade.enter_tag in self._withdrawn or signal is None or _ms(current_time) > signal.valid_until_ms

    def order_filled(self, pair: str, trade: Trade, order: Order, current_time: datetime, **kwargs: Any) -> None:
        """Store the signal's levels with the trade, so that they survive a restart."""
        signal = self._known.get(trade.enter_tag or "")
        if signal is None or order.ft_order_side != trade.entry_side or signal.stop is None or signal.target is None:
            return
        trade.set_custom_data("stop", float(signal.stop))
        trade.set_custom_data("target", float(signal.target))
        trade.set_custom_data("horizon_end_ms", signal.horizon_end_ms)

    def custom_stoploss(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float, current_profit: float, after_fill: bool, **kwargs: Any
    ) -> float | None:
        """Return the signal's stop, relative to the current rate."""
        stop = trade.get_custom_data("stop")
        if stop is None:
            return None
        return stoploss_from_absolute(stop, current_rate, is_short=trade.is_short, leverage=trade.leverage)

    def custom_exit(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float, current_profit: float, **kwargs: Any
    ) -> str | None:
        """Return why the trade is closed: a later signal, the target, or the end of the horizon."""
        later = self._closing.get(pair)
        mine = Action.SELL if trade.is_short else Action.BUY
        if later is not None and later.action is not mine and later.ts_decided_ms > _ms(trade.open_date_utc):
            return f"aquiline_{later.action.value}"
        target, horizon_end_ms = trade.get_custom_data("target"), trade.get_custom_data("horizon_end_ms")
        if target is not None and (current_rate <= target if trade.is_short else current_rate >= target):
            return "aquiline_target"
        if horizon_end_ms is not None and _ms(current_time) >= horizon_end_ms:
            return "aquiline_horizon"
        return None

    def _valid(self, pair: str, now: datetime) -> Signal | None:
        """Return the signal to enter on now; `sell` only where shorting is on."""
        signal = self._entries.get(pair)
        if signal is None or _ms(now) > signal.valid_until_ms or (signal.action is Action.SELL and not self.can_short):
            return None
        return signal


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1_000)


def _ids(tags: Any) -> list[UUID]:
    """Return the ids of signals among enter tags; other trades have other tags."""
    found = []
    for tag in tags:
        try:
            found.append(UUID(tag or ""))
        except ValueError:
            continue
    return found
