"""Each alert is fired once by the fault that it is for, in a real Prometheus that scrapes the compose stack. Needs the extra `vision`.

A GPU's own errors alone are made up: a page stands for dcgm-exporter.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from deploy.check import dashboards, series
from schemas import HaltState
from tests.integration.alerts import faults
from tests.integration.alerts.conftest import Watch
from tests.integration.alerts.prometheus import sped_up
from tests.integration.fusion.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="package")]

ALERTS = [rule["alert"] for rule in series.rules() if "alert" in rule]
MINUTES_MS = 60_000 // 60


async def test_a_minute_takes_a_second() -> None:
    """Every time is a sixtieth, and nothing else is touched."""
    rule = 'expr: max by (x) (a_seconds{job="fusion"}) > 30 and rate(b_total[10m]) > 30\nfor: 2m\nscrape_interval: 15s'
    expected = 'expr: max by (x) (a_seconds{job="fusion"}) > 0.5 and rate(b_total[10000ms]) > 30\nfor: 2000ms\nscrape_interval: 250ms'
    assert expected == sped_up(rule)


async def test_nothing_fires_while_all_is_well_and_the_dashboard_has_an_answer_to_every_question(watch: Watch) -> None:
    board = json.loads((dashboards.FOLDER / "dashboards" / "aquiline.json").read_text())

    asked = {f"{panel['title']}: {expression}": sped_up(expression) for panel, expression in dashboards.queries(board)}
    # Alerts that do not fire, and what is put aside or kept back, have nothing to show.
    asked = {what: expression for what, expression in asked.items() if "> 0" not in what and "ALERTS{" not in what}
    unanswered: list[str] = list(asked)

    async def all_answered() -> bool:
        unanswered[:] = [what for what in unanswered if not await watch.prometheus.query(asked[what])]
        return not unanswered

    await until(all_answered, "an answer to every query", told=lambda: f"unanswered: {unanswered}\n{watch.stack.tails()}")
    await watch.rests(*ALERTS)


async def test_what_is_put_aside_a_long_halt_and_a_failing_gpu_are_told(watch: Watch) -> None:
    names = ("AquilineDeadLetters", "AquilineHaltedLong", "AquilineGpuXid", "AquilineGpuMemoryErrors")
    await watch.rests(*names)
    await faults.put_nonsense(watch.producer)
    await faults.say(watch.producer, HaltState.HALTED, ago_ms=14 * MINUTES_MS)
    watch.gpu.values |= {"DCGM_FI_DEV_XID_ERRORS": 79, "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": 5}
    await asyncio.gather(*map(watch.fires, names))
    await watch.fires("AquilineDeadLetters", job="fusion", reason="malformed", severity="ticket")
    await watch.fires("AquilineHaltedLong", severity="page")
    await faults.say(watch.producer, HaltState.ACTIVE)
    await watch.rests("AquilineHaltedLong")


async def test_outcomes_that_the_broker_does_not_take_page_and_work_stands_still(watch: Watch) -> None:
    names = ("AquilineTriggersWithoutOutcome", "AquilineLagWithoutProgress")
    await watch.rests(*names)
    async with faults.audit_takes_nothing(watch.kafka.bootstrap):
        await asyncio.gather(*map(watch.fires, names))
        await watch.fires("AquilineLagWithoutProgress", job="fusion", topic="market-features")
    await watch.rests(*names)


async def test_an_engine_that_hangs_behind_pages_that_answer_pages(watch: Watch) -> None:
    names = ("AquilineAllEnginesDown", "AquilineBreakerOpen", "AquilineStaleRate")
    await watch.rests(*names)
    async with faults.engine_hangs(watch.stack):
        await asyncio.gather(*map(watch.fires, names))
    await watch.rests("AquilineAllEnginesDown", "AquilineBreakerOpen")


async def test_an_engine_that_came_back_with_another_draft_and_less_memory_is_told(watch: Watch) -> None:
    names = ("AquilinePrefixHitsFalling", "AquilineAcceptanceFalling")
    await watch.rests(*names)
    await faults.engine_comes_back_worse(watch.stack, kv_tokens=16_000)
    await asyncio.gather(*map(watch.fires, names))


async def test_a_worker_whose_clock_is_slow_is_told(watch: Watch) -> None:
    await watch.rests("AquilineClockSkew")
    await faults.worker_gets_a_slow_clock(watch.stack)
    await watch.fires("AquilineClockSkew", job="fusion")


async def test_a_service_that_is_gone_is_told(watch: Watch) -> None:
    await watch.rests("AquilineServiceDown")
    watch.stack.processes["vision"].kill()
    await watch.fires("AquilineServiceDown", job="vision")
