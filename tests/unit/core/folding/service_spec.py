"""What every service that folds candles promises on any bus: it resumes at its commits, and members come and go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Generic

from schemas import Candle, Topic
from services.core.folding.disposition import Disposition
from tests.unit.core.folding.desk import Desk, F, until


class FoldingServiceSpec(ABC, Generic[F]):
    """The tests that market and vision services share; `candles` and `restarted` set how many candles of a symbol they fold."""

    candles: int
    restarted: int

    @abstractmethod
    def market_of(self, count: int, start: int = 0) -> list[Candle]:
        """Return `count` candles of each symbol."""

    @abstractmethod
    def expected_of(self, candles: Sequence[Candle]) -> Mapping[str, list[F]]:
        """Return the features that `candles` make, by symbol, in order."""

    @abstractmethod
    def identity(self, features: F) -> Hashable:
        """Return what features that are published again have in common."""

    async def test_a_restarted_service_goes_on_where_the_first_one_stopped(self, desk: Desk[Any, F]) -> None:
        first, second = self.market_of(self.candles), self.market_of(self.restarted, start=self.candles)
        await desk.publish(Topic.CANDLES, first)
        async with desk.running() as service:
            await until(lambda: service.counts.records == len(first))
        await desk.publish(Topic.CANDLES, second)
        async with desk.running() as service:
            await until(lambda: service.counts.records == len(second))
        assert await desk.features() == self.expected_of(first + second)
        assert service.counts.dispositions == {Disposition.FOLDED: len(second)}

    async def test_members_that_come_and_go_lose_nothing_and_keep_each_symbol_in_order(self, desk: Desk[Any, F]) -> None:
        candles = self.market_of(self.candles + self.restarted + 10)
        third = len(candles) // 3
        async with desk.running() as one:
            await desk.publish(Topic.CANDLES, candles[:third])
            await until(lambda: one.counts.records > 0)
            async with desk.running() as two:
                await until(lambda: bool(two._partitions) and bool(one._partitions))
                await desk.publish(Topic.CANDLES, candles[third : 2 * third])
                await until(lambda: two.counts.records > 0)
            await desk.publish(Topic.CANDLES, candles[2 * third :])
            await until(lambda: one.counts.records + two.counts.records >= len(candles))
        found = await desk.features()
        for symbol, wanted in self.expected_of(candles).items():
            # At least once: what a drained member published before it left is never published again, but may be after a failed commit.
            assert list({self.identity(one): one for one in found[symbol]}.values()) == wanted
