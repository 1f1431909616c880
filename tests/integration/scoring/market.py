"""A small market of several symbols with what was said about it, and what the judges make of it without any Kafka."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from schemas import Instrument, Message
from services.core.calendar import SessionCalendar
from services.scoring.fill_rules import FillRules
from services.scoring.judge import Judge
from tests.integration.scoring.desk import MODE
from tests.unit.scoring.build import Move, bar, cancel, signal, take

SYMBOLS = ("AAA.XTST", "BBB.XTST", "CCC.XTST", "DDD.XTST", "EEE.XTST", "FFF.XTST")
COSTS = FillRules(cost_bps=2.0, slippage_bps=1.0)


class Market:
    """Bars and signals, in the order in which a market and a worker would append them."""

    def __init__(self, bars: int = 30, *, seed: int = 1) -> None:
        generator = random.Random(seed)  # noqa: S311 - a market, not a secret
        self.instruments: list[Message] = [_instrument(symbol) for symbol in SYMBOLS]
        self.moves: list[Move] = []
        prices = dict.fromkeys(SYMBOLS, 1_000)
        for number in range(bars):
            for symbol in SYMBOLS:
                prices[symbol] = self._step(generator, symbol, number, prices[symbol], last=number == bars - 1)
        judges = {symbol: Judge(replace(COSTS, ticks_of=_instrument(symbol)), SessionCalendar.of("24x7")) for symbol in SYMBOLS}
        outcomes = [outcome for move in self.moves for outcome in take(judges[move.symbol], move)]
        self.expected = {str(outcome.signal_id): outcome.encode() for outcome in outcomes}
        """The body of each outcome by signal."""
        self.open = {paper["signal_id"] for judge in judges.values() for paper in judge.dump()["open"]}

    def chunks(self, count: int) -> list[list[Move]]:
        """Return the moves in so many pieces."""
        return [self.moves[len(self.moves) * at // count : len(self.moves) * (at + 1) // count] for at in range(count)]

    def _step(self, generator: random.Random, symbol: str, number: int, price: int, *, last: bool) -> int:
        closing = price + generator.randint(-8, 8)
        high, low = max(price, closing) + generator.randint(0, 4), min(price, closing) - generator.randint(0, 4)
        tenths = " ".join(str(one / 10) for one in (price, high, low, closing))
        self.moves.append(bar(number, tenths, symbol=symbol))
        if not last and generator.random() < 0.5:  # what is said after the last bar would stay open
            fields: dict[str, Any] = {
                "symbol": symbol,
                "horizon_bars": generator.randint(1, 6),
                "conviction": generator.randint(0, 10) / 10,
                "vision": generator.choice(["fresh", "stale"]),
            }
            side = generator.choice([1, -1])
            entry, stop, target = (f"{(closing + side * off) / 10:.2f}" for off in (5, -12, 20))
            said = signal("buy" if side > 0 else "sell", number + 1, entry=entry, stop=stop, target=target, **fields)
            self.moves.append(said)
            if generator.random() < 0.1:
                self.moves.append(cancel(said, number + 1.02))
        return closing


def _instrument(symbol: str) -> Instrument:
    return Instrument(
        schema_version=1, run_mode=MODE, symbol=symbol, currency="USD", price_increment="0.01", calendar="24x7", price_adjustment="none"
    )
