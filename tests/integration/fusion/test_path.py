"""From records to signals and audit on a real Kafka, with a real Redis and the simulator."""

from __future__ import annotations

import pytest

from schemas import Topic
from tests.integration.fusion.feed import SYMBOLS
from tests.integration.fusion.site import Site

pytestmark = pytest.mark.integration


async def test_every_bar_becomes_an_outcome_and_the_sums_close(site: Site) -> None:
    worker = await site.worker().start().ready()
    made = await site.feed(bars=3)
    await site.logs.until(
        lambda: len(site.logs.ended) >= len(made), "an outcome for every bar", told=lambda: site.logs.summary() + site.tails()
    )
    assert site.logs.outcomes()["published"] >= len(SYMBOLS)
    assert sum(site.logs.outcomes().values()) == len(made)
    assert await worker.metric("aquiline_records_total", outcome="folded") == len(made)
    assert await worker.metric("aquiline_outcomes_total") == len(made)
    assert await worker.metric("aquiline_stage_seconds_count", stage="total") == site.logs.outcomes()["published"]
    assert {record.partition for record in site.logs.records[Topic.MARKET_FEATURES]} == {0, 1, 2, 3}
