"""The market service: it consumes candles and publishes each with its indicators, and the higher bars built from them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass

from schemas import Topic
from services.core.bus import Bus, Position, Record
from services.core.clock import Clock
from services.core.decode import accepted_modes
from services.core.folding.candles import CandleRules
from services.core.folding.disposition import Counts
from services.core.folding.service import FoldingService, Role
from services.core.health import Health
from services.core.metrics import MARKET_FEATURES
from services.core.settings import Settings, SettingsError
from services.market.book import check_plan
from services.market.books import Books, CandleResult
from services.market.own_features import load_features


@dataclass(slots=True)
class MarketCounts(Counts):
    """Records read by disposition, and features published."""

    features: int = 0


class MarketService(FoldingService[CandleResult]):
    """One member of the market group."""

    def __init__(self, bus: Bus, settings: Settings, clock: Clock, health: Health) -> None:
        """Raise SettingsError when `market.aggregate` names an interval that cannot be built, or `market.features_file` no features."""
        try:
            check_plan(settings.market.aggregate)
        except ValueError as error:
            raise SettingsError(f"market.aggregate: {error}") from error
        super().__init__(
            bus,
            settings,
            clock,
            health,
            Role("aquiline-market", settings.market.group, Topic.CANDLES, Topic.MARKET_FEATURES, "market", first=True),
        )
        self.counts: MarketCounts = MarketCounts()
        self._rules = CandleRules(accepted_modes(settings.run_mode), settings.bus.max_record_bytes, settings.fusion.max_skew_ms)
        self._plan = settings.market.aggregate
        self._own = None if settings.market.features_file is None else load_features(settings.market.features_file)

    def begin_books(self) -> Books:
        """Return the empty books of a partition."""
        return Books(self._instruments, self._rules, self._plan, self._own)

    def count(self, result: CandleResult) -> None:
        """Count a record and its features."""
        super().count(result)
        self.counts.features += len(result.features)

    async def publish(self, taken: AsyncIterator[tuple[Record, CandleResult]]) -> list[Awaitable[Position]]:
        """Publish each record's features as soon as it is folded."""
        acks: list[Awaitable[Position]] = []
        async for record, result in taken:
            headers = self.made(record) if result.features else ()
            for features in result.features:
                acks.append(await self.send(record, features, headers))
                MARKET_FEATURES.labels("closed" if features.closed else "forming").inc()
        return acks
