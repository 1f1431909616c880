"""Health: readiness is conditions, liveness is progress, and the pages tell both with their reasons."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from services.core.health import Health, HealthServer
from services.core.metrics import REGISTRY
from services.core.settings import HttpSettings, SettingsError


class Seconds:
    """A monotonic clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_service_is_ready_once_every_required_condition_is_set() -> None:
    health = Health()
    health.require("assigned", "control_read")
    health.set("assigned")
    before = (health.ready, health.unmet)
    health.set("control_read")
    assert before == (False, {"control_read": "not yet"})
    assert health.ready


def test_a_condition_that_is_cleared_says_why() -> None:
    health = Health()
    health.set("assigned")
    health.clear("assigned", "partitions moved")
    assert health.unmet == {"assigned": "partitions moved"}


def test_requiring_a_condition_again_does_not_undo_it() -> None:
    health = Health()
    health.set("assigned")
    health.require("assigned")
    assert health.ready


def test_nothing_is_expected_before_the_first_progress() -> None:
    now = Seconds()
    health = Health(stall_after_s=60, monotonic=now)
    now.now += 1e6
    assert health.stalled_s is None


def test_a_service_without_progress_for_too_long_is_stalled() -> None:
    now = Seconds()
    health = Health(stall_after_s=60, monotonic=now)
    health.progress()
    now.now += 60
    in_time = health.stalled_s
    now.now += 1
    too_late = health.stalled_s
    health.progress()
    assert (in_time, too_late, health.stalled_s) == (None, 61, None)


def test_an_excuse_stands_in_for_progress_and_its_end_starts_the_count_anew() -> None:
    now = Seconds()
    health = Health(stall_after_s=60, monotonic=now)
    health.progress()
    health.excuse("rebalancing")
    health.excuse("engine_unreachable")
    now.now += 600
    health.end_excuse("rebalancing")
    excused = health.stalled_s
    health.end_excuse("engine_unreachable")
    now.now += 59
    in_time = health.stalled_s
    now.now += 2
    assert (excused, in_time, health.stalled_s) == (None, None, 61)


def test_ending_an_excuse_that_never_was_is_no_progress() -> None:
    now = Seconds()
    health = Health(stall_after_s=60, monotonic=now)
    health.progress()
    now.now += 61
    health.end_excuse("rebalancing")
    assert health.stalled_s == 61


@asynccontextmanager
async def _serving(health: Health) -> AsyncIterator[str]:
    server = HealthServer(HttpSettings(port=0), health)
    await server.start()
    try:
        yield f"http://127.0.0.1:{server.bound_port}"
    finally:
        await server.close()


async def _get(url: str) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.json()


async def test_the_pages_answer_200_when_all_is_well() -> None:
    async with _serving(Health()) as base:
        assert await _get(f"{base}/livez") == (200, {"alive": True, "reasons": [], "excuses": []})
        assert await _get(f"{base}/readyz") == (200, {"ready": True, "unmet": {}})


async def test_the_pages_answer_503_with_the_reasons_when_it_is_not() -> None:
    now = Seconds()
    health = Health(stall_after_s=60, monotonic=now)
    health.require("assigned")
    health.progress()
    now.now += 90
    async with _serving(health) as base:
        assert await _get(f"{base}/livez") == (503, {"alive": False, "reasons": ["no progress for 90 s"], "excuses": []})
        assert await _get(f"{base}/readyz") == (503, {"ready": False, "unmet": {"assigned": "not yet"}})


async def test_metrics_are_served_as_prometheus_text() -> None:
    async with _serving(Health()) as base, aiohttp.ClientSession() as session, session.get(f"{base}/metrics") as response:
        text = await response.text()
        assert response.status == 200
        assert response.content_type == "text/plain"
    assert 'aquiline_build_info{version="' in text


async def test_an_address_in_use_is_refused_with_a_sentence() -> None:
    async with _serving(Health()) as base:
        taken = HealthServer(HttpSettings(port=int(base.rsplit(":", 1)[1])), Health())
        with pytest.raises(SettingsError, match=r"cannot be listened on .* choose another port"):
            await taken.start()


def test_the_port_is_unknown_before_the_start() -> None:
    with pytest.raises(RuntimeError, match="start it first"):
        _ = HealthServer(HttpSettings(port=0), Health()).bound_port


def test_every_metric_of_ours_has_the_prefix_and_a_help_text() -> None:
    for metric in REGISTRY.collect():
        assert metric.name.startswith(("aquiline_", "process_", "python_"))
        assert metric.documentation
