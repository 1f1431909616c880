"""The scorer on a real Kafka."""

from __future__ import annotations

import pytest

from tests.integration.scoring.desk import Desk
from tests.integration.scoring.market import Market

pytestmark = pytest.mark.integration


async def test_signals_and_bars_become_outcomes_and_tables(desk: Desk) -> None:
    market = Market()
    await desk.publish(market.instruments)
    worker = await desk.worker().start().ready()
    await desk.publish(market.moves)
    await desk.judged(len(market.expected))
    assert await desk.outcomes() == market.expected
    worker.terminate()
    assert await worker.ended() == 0
    assert await desk.tables() == market.tables
