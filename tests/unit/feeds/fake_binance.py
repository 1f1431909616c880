"""A server that answers as Binance's public API does, for ccxt as it is: self-made prices, and faults on demand.

Each bar is a function of its number; while it forms, its values are those of the part that has passed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from schemas import interval_ms
from services.core.clock import Clock

MINUTE: Final = 60_000
_LISTED_MS: Final = 1_700_000_000_000 // MINUTE * MINUTE


class FastClock:
    """Wall time from 2024 on that passes `speed` times as fast, so that a test sees minutes pass."""

    def __init__(self, speed: float = 300.0) -> None:
        self._begin_s = time.monotonic()
        self._speed = speed

    def now_ms(self) -> int:
        return 1_720_000_020_000 + round((time.monotonic() - self._begin_s) * 1_000 * self._speed)

    async def sleep_until(self, at_ms: int) -> None:
        while (left_ms := at_ms - self.now_ms()) > 0:  # noqa: ASYNC110 - as the system's clock does
            await asyncio.sleep(left_ms / 1_000 / self._speed)

    def elapsed_s(self) -> float:
        return time.perf_counter()


def final(open_ms: int, length_ms: int = MINUTE, *, amended: bool = False) -> tuple[float, float, float, float, float]:
    """Return open, high, low, close and volume of a bar when it has ended."""
    number = open_ms // length_ms
    first, last = 100 + number % 7, 100 + (number + 1) % 7
    return float(first), max(first, last) + 1.0, min(first, last) - 1.0, float(last), 60.0 + (1 if amended else 0)


class FakeBinance:
    """The server. `faults` are played once each, in order, by the next requests for candles."""

    def __init__(self, clock: Clock, ahead_ms: int = 0) -> None:
        self._clock = clock
        self._ahead_ms = ahead_ms
        self.faults: deque[str] = deque()
        self.amended: set[int] = set()
        self.page_bars = 1_000
        self.requests = 0
        app = web.Application()
        app.router.add_get("/api/v3/time", self._time)
        app.router.add_get("/api/v3/exchangeInfo", self._info)
        app.router.add_get("/api/v3/klines", self._klines)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        self.url = ""

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/api/v3"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()

    @property
    def options(self) -> dict[str, Any]:
        """What ccxt is given to find this server, and to ask for spot markets alone."""
        return {"urls": {"api": {"public": self.url}}, "options": {"fetchMarkets": {"types": ["spot"]}}, "rateLimit": 1}

    def now_ms(self) -> int:
        return self._clock.now_ms() + self._ahead_ms

    async def _time(self, _: web.Request) -> web.Response:
        return web.json_response({"serverTime": self.now_ms()})

    async def _info(self, _: web.Request) -> web.Response:
        filters = [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "maxPrice": "1000000.00000000", "tickSize": "0.01000000"},
            {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "9000.00000000", "stepSize": "0.00001000"},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000", "maxNotional": "9000000.00000000"},
        ]
        market = {
            "symbol": "BTCUSDT",
            "status": "TRADING",
            "baseAsset": "BTC",
            "quoteAsset": "USDT",
            "baseAssetPrecision": 8,
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "baseCommissionPrecision": 8,
            "quoteCommissionPrecision": 8,
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "permissions": ["SPOT"],
            "permissionSets": [["SPOT"]],
            "orderTypes": ["LIMIT"],
            "filters": filters,
        }
        other = {**market, "symbol": "ETHUSDT", "baseAsset": "ETH"}
        return web.json_response({"timezone": "UTC", "serverTime": self.now_ms(), "rateLimits": [], "symbols": [market, other]})

    async def _klines(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if self.faults:
            return self._fault(self.faults.popleft(), request)
        length_ms = interval_ms(request.query["interval"])
        start_ms = int(request.query.get("startTime", self.now_ms() - 500 * length_ms))
        limit = min(int(request.query.get("limit", 500)), self.page_bars)
        first = -(-max(start_ms, _LISTED_MS) // length_ms) * length_ms
        rows = [self._row(open_ms, length_ms) for open_ms in range(first, self.now_ms() + 1, length_ms)[:limit]]
        return web.json_response(rows)

    def _fault(self, fault: str, request: web.Request) -> web.Response:
        if fault == "disconnect" and request.transport is not None:
            request.transport.close()
        answers: dict[str, Callable[[], web.Response]] = {
            "disconnect": web.Response,
            "rate_limit": lambda: web.json_response({"code": -1003, "msg": "Too many requests."}, status=429, headers={"Retry-After": "2"}),
            "banned": lambda: web.json_response({"code": -1003, "msg": "Way too many requests; IP banned."}, status=418),
            "maintenance": lambda: web.json_response({"code": 1, "msg": "System is under maintenance."}, status=503),
            "page": lambda: web.Response(text="<html>Bad gateway</html>", content_type="text/html", status=502),
            "not_json": lambda: web.Response(text="<html>Welcome to the hotel's network</html>", content_type="text/html"),
            "cut": lambda: web.Response(text='[[1720000000000,"1","2"', content_type="application/json"),
            "nulls": lambda: web.json_response([[self.now_ms() // MINUTE * MINUTE, None, None, None, None, None]]),
        }
        return answers[fault]()

    def _row(self, open_ms: int, length_ms: int) -> list[Any]:
        first, high, low, last, volume = final(open_ms, length_ms, amended=open_ms in self.amended)
        passed = min(1.0, (self.now_ms() - open_ms) / length_ms)
        if passed < 1:
            last = round(first + (last - first) * passed, 2)
            high, low, volume = max(first, last), min(first, last), round(volume * passed, 3)
        texts = [f"{value:.8f}" for value in (first, high, low, last, volume)]
        return [open_ms, *texts, open_ms + length_ms - 1, "0", 1, "0", "0", "0"]
