"""Hours of market time for fifty symbols at speed, on a real Kafka and a real Redis: every sum closes, and memory is flat.

`make soak HOURS=24` plays a day; the tests' everyday run a few minutes, of which only the sums are judged.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.soak.market import SYMBOLS, SoakSite
from tests.stored import store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(0)]

HOURS = float(os.environ.get("HOURS", "0.1"))
MOST_GROWTH = 0.05
REASONS = {"published", "publish_unacknowledged", "deadline", "engine_timeout"}
"""On a busy machine an answer or an acknowledgement may come late; nothing else may happen."""


async def test_hours_of_market_close_every_sum_and_keep_memory_flat(site: SoakSite) -> None:
    worker = await site.worker(fusion={"permits": 8, "max_staleness_ms": 60_000, "entry_validity_ms": {"1m": 60_000}}).start().ready()
    hourly: list[int] = []
    started = time.monotonic()
    for minute in range(max(1, round(HOURS * 60))):
        await site.minute()
        if minute % 60 == 59:
            hourly.append(int(await worker.metric("process_resident_memory_bytes")))
    took_s = time.monotonic() - started
    sums, bars = site.sums, site.minutes * len(SYMBOLS)
    assert await worker.metric("aquiline_triggers_total") == len(sums.outcome_of) == bars
    assert await worker.metric("aquiline_outcomes_total") == bars
    assert await worker.metric("aquiline_records_total") == site.records
    assert sums.repeated == sums.dead == 0
    assert sums.published <= sums.trigger_of.keys()
    assert {sums.trigger_of[signal] for signal in sums.trigger_of.keys() - sums.published} <= sums.unacknowledged, sums.by_reason
    assert set(sums.by_reason) <= REASONS, sums.by_reason
    worker.terminate()
    assert await worker.ended() == 0
    growth = hourly[-1] / hourly[0] - 1 if len(hourly) > 1 else 0.0
    store(
        "soak",
        f"{HOURS:g} hours",
        {
            "hours": HOURS,
            "symbols": len(SYMBOLS),
            "records": site.records,
            "triggers": bars,
            "ended": dict(sums.by_reason),
            "signals": len(sums.trigger_of),
            "took_s": round(took_s, 1),
            "resident_mib_by_hour": [round(held / 2**20, 1) for held in hourly],
            "growth_after_the_first_hour": round(growth, 4),
        },
    )
    assert growth <= MOST_GROWTH, hourly
