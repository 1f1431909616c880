"""The health check of containers: what it ends with is what the engine goes by."""

from __future__ import annotations

import asyncio

import pytest

from services.core import healthcheck
from services.core.health import Health, HealthServer
from services.core.settings import HttpSettings


async def test_it_ends_with_0_only_when_the_page_answers_200(capsys: pytest.CaptureFixture[str]) -> None:
    health = Health()
    health.require("rebuilt")
    server = HealthServer(HttpSettings(port=0), health)
    await server.start()
    page = [f"http://127.0.0.1:{server.bound_port}/readyz"]
    before = await asyncio.to_thread(healthcheck.main, page)
    said = capsys.readouterr().out
    health.set("rebuilt")
    after = await asyncio.to_thread(healthcheck.main, page)
    await server.close()
    assert (before, after) == (1, 0)
    assert "rebuilt" in said, "whoever asks why it is unhealthy is told which condition is missing"
    assert await asyncio.to_thread(healthcheck.main, page) == 1, "nobody listens any more"


@pytest.mark.parametrize("arguments", [[], ["127.0.0.1:9400"], ["https://127.0.0.1/"], ["http://127.0.0.1/", "more"]])
def test_what_is_no_address_is_told_from_what_does_not_answer(arguments: list[str]) -> None:
    assert healthcheck.main(arguments) == 2
