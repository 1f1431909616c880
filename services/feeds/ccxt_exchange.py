"""Instruments (tick, lot, fees) and candles of an exchange, through ccxt.

Validates what the exchange answers, and maps ccxt's errors to two kinds: temporary (retry) and permanent (tell the user).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import orjson
import structlog
from pydantic import ValidationError

from schemas import Candle, Instrument, RunMode, interval_ms
from services.core.clock import Clock
from services.core.settings import SettingsError

_PAGE_BARS: Final = 500
"""Bars requested at once. An exchange may return fewer."""
_VENUE_LETTERS: Final = 12
_BASIS_POINTS: Final = 10_000
_CLASSES: Final = {"spot": "crypto", "margin": "crypto", "swap": "future", "future": "future", "option": "option"}

_log = structlog.get_logger()


class UnreachableError(Exception):
    """The exchange cannot be reached or answers with an error that may pass."""

    def __init__(self, reason: str, problem: str, wait_ms: int = 0) -> None:
        """Take the reason as a metric label (`rate_limit`, `maintenance`, `network`, `answer`) and the exchange's `Retry-After`."""
        super().__init__(problem)
        self.reason = reason
        self.wait_ms = wait_ms


class Exchange:
    """One exchange, by its ccxt name."""

    def __init__(self, name: str, options: Mapping[str, Any], run_mode: RunMode, clock: Clock) -> None:
        """Raise SettingsError when ccxt is not installed or has no such exchange; `options` are ccxt's own."""
        try:
            import ccxt.async_support as ccxt  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise SettingsError("aquiline feed ccxt needs ccxt; install it with: pip install 'aquiline[feeds]'") from error
        if name not in ccxt.exchanges:
            near = ", ".join(one for one in ccxt.exchanges if one.startswith(name[:4]))
            hint = f"; did you mean {near}?" if near else ", by its ccxt name such as binance or kraken"
            raise SettingsError(f"--exchange {name!r} is not an exchange of ccxt{hint}")
        self._ccxt = ccxt
        self._name = name
        self.run_mode = run_mode
        self._clock = clock
        self._api: Any = getattr(ccxt, name)({"enableRateLimit": True, **options})
        self._ahead_ms: int | None = None
        """Lower bound of how far the exchange's clock is ahead of ours; None when the exchange has no time endpoint."""

    async def open(self, names: Sequence[str], interval: str) -> None:
        """Load the markets and measure the clock; raise UnreachableError, or SettingsError for an unknown market or interval."""
        await self._call(self._api.load_markets, True)
        for name in names:
            if name not in self._api.markets:
                base = name.partition("/")[0]
                near = [one for one in self._api.markets if one.startswith(f"{base}/")][:5]
                known = f"; it has {', '.join(near)}" if near else ""
                raise SettingsError(f"--symbol {name!r} is not a market of {self._name}{known}")
        if not self._api.has.get("fetchOHLCV"):
            raise SettingsError(f"--exchange {self._name} has no candles")
        if interval not in (self._api.timeframes or {}):
            known = ", ".join(one for one in self._api.timeframes or {} if re.fullmatch(r"\d+[smhdw]", one))
            raise SettingsError(f"--interval {interval!r} is not an interval of {self._name}; it has {known}")
        await self.measure_clock()

    async def measure_clock(self) -> None:
        """Measure the exchange's clock. Without one, a bar is closed once the exchange returns a later bar."""
        if self._api.has.get("fetchTime"):
            server_ms = await self._call(self._api.fetch_time)
            # A lower bound: the answer was already under way when it was received.
            self._ahead_ms = int(server_ms) - self._clock.now_ms()

    def instrument(self, name: str, symbol: str) -> Instrument:
        """Return the instrument of a market; raise SettingsError when the exchange's description cannot be used."""
        market = self._api.markets[name]
        fee = market.get("taker")
        described = {
            "schema_version": 1,
            "run_mode": self.run_mode,
            "symbol": symbol,
            "currency": market["quote"],
            "price_increment": self._step(market, "price"),
            "calendar": "24x7",
            "price_adjustment": "none",
            "asset_class": _CLASSES.get(market.get("type")),
            "multiplier": float(market.get("contractSize") or 1),
            "lot_size": self._step(market, "amount"),
            "min_notional": _decimal((market.get("limits", {}).get("cost") or {}).get("min")),
            "settlement_currency": None if market.get("settle") in {None, market["quote"]} else market["settle"],
            "expiry_ms": market.get("expiry"),
            "fee_bps": None if fee is None or fee < 0 else round(float(fee) * _BASIS_POINTS, 6),
        }
        try:
            return Instrument.model_validate({key: value for key, value in described.items() if value is not None})
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            where = ".".join(map(str, wrong["loc"]))
            raise SettingsError(f"{self._name} describes {name} with an invalid value: {where} = {wrong['input']!r}") from error

    async def candles(self, name: str, symbol: str, interval: str, since_ms: int) -> tuple[list[Candle], bool]:
        """Return the bars from `since_ms` on in time order, and whether there may be more; raise UnreachableError.

        A bar is closed when it had ended by the exchange's clock before the request, or a later bar exists.
        """
        asked_ms = self._clock.now_ms()
        rows = await self._call(self._api.fetch_ohlcv, name, interval, since_ms, _PAGE_BARS)
        ended_ms = 0 if self._ahead_ms is None else asked_ms + self._ahead_ms
        length = interval_ms(interval)
        good = sorted((row for row in rows or [] if _is_row(row) and row[0] >= since_ms), key=lambda row: int(row[0]))
        latest_ms = int(good[-1][0]) if good else 0
        made = []
        for row in good:
            open_ms = int(row[0])
            closed = open_ms + length <= max(ended_ms, latest_ms)
            if (candle := self._candle(symbol, interval, row, closed=closed)) is not None:
                made.append(candle)
        # The exchange's page may be shorter than ours, so only the current bar shows that there is no more.
        more = bool(good) and latest_ms + 2 * length <= asked_ms + (self._ahead_ms or 0) and latest_ms > since_ms
        return made, more

    def now_ms(self) -> int:
        """Return the exchange's time, or ours when it has no time endpoint."""
        return self._clock.now_ms() + (self._ahead_ms or 0)

    async def close(self) -> None:
        """Close its connections."""
        await self._api.close()

    def _candle(self, symbol: str, interval: str, row: Sequence[Any], *, closed: bool) -> Candle | None:
        try:
            return Candle(
                schema_version=1,
                run_mode=self.run_mode,
                symbol=symbol,
                interval=interval,
                ts_open_ms=int(row[0]),
                ts_close_ms=int(row[0]) + interval_ms(interval),
                open=float(row[1]),
                high=float(row[2]),
                low=float(row[3]),
                close=float(row[4]),
                volume=float(row[5] or 0),
                closed=closed,
            )
        except (ValidationError, TypeError, ValueError) as error:
            _log.warning("bar_invalid", exchange=self._name, symbol=symbol, ts_open_ms=int(row[0]), problem=str(error).splitlines()[0])
            return None

    def _step(self, market: Mapping[str, Any], what: str) -> str | None:
        """Return a precision as a step; ccxt has it as a step or as decimal places, by exchange."""
        value = (market.get("precision") or {}).get(what)
        if value is None:
            return None
        if self._api.precisionMode == self._ccxt.DECIMAL_PLACES:
            return _decimal(Decimal(1).scaleb(-int(value)))
        return _decimal(value) if self._api.precisionMode == self._ccxt.TICK_SIZE else None

    async def _call(self, call: Any, *arguments: Any) -> Any:
        """Call ccxt; map its errors to UnreachableError and SettingsError."""
        ccxt = self._ccxt
        try:
            return await call(*arguments)
        except (ccxt.RateLimitExceeded, ccxt.DDoSProtection) as error:
            raise UnreachableError("rate_limit", _said(error), self._retry_after_ms()) from error
        except ccxt.OnMaintenance as error:
            raise UnreachableError("maintenance", _said(error)) from error
        except ccxt.OperationFailed as error:
            raise UnreachableError("network", _said(error)) from error
        except (ccxt.BadRequest, ccxt.NotSupported, ccxt.AuthenticationError) as error:
            raise SettingsError(f"{self._name} refuses the request: {_said(error)}") from error
        except (ccxt.BaseError, ValueError, TypeError, KeyError, IndexError) as error:
            # An answer that ccxt cannot parse, such as a proxy's HTML page.
            raise UnreachableError("answer", _said(error)) from error

    def _retry_after_ms(self) -> int:
        headers = self._api.last_response_headers or {}
        text = str(next((value for name, value in headers.items() if name.lower() == "retry-after"), ""))
        return int(text) * 1_000 if text.isdigit() else 0


def default_symbol(name: str, exchange: str) -> str:
    """Return `BTC-USDT.BINANCE` for the market `BTC/USDT` of `binance`, `BTC-USDT-USDT.BINANCE` for `BTC/USDT:USDT`."""
    base = re.sub(r"[^A-Z0-9]+", "-", name.upper()).strip("-")
    return f"{base}.{re.sub(r'[^A-Z0-9]', '', exchange.upper())[:_VENUE_LETTERS]}"


def _is_row(row: Any) -> bool:
    return isinstance(row, list | tuple) and len(row) >= 6 and isinstance(row[0], int | float)  # noqa: PLR2004 - a time and five numbers


def _decimal(value: Any) -> str | None:
    """Return a positive number as a decimal string without exponent, else None."""
    if value is None:
        return None
    made = Decimal(str(value))
    return f"{made.normalize():f}" if made > 0 else None


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def ccxt_options(texts: list[str]) -> dict[str, Any]:
    """Parse ccxt options such as `urls.api.public=http://…`: dots separate tables, values are JSON or text; raise SettingsError."""
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise SettingsError(f"--option {text!r}: expected KEY=VALUE, such as httpsProxy=http://proxy:3128")
        *tables, last = key.split(".")
        table = options
        for name in tables:
            table = table.setdefault(name, {})
        try:
            table[last] = orjson.loads(value)
        except orjson.JSONDecodeError:
            table[last] = value
    return options
