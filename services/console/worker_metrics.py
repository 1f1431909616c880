"""The workers' own metrics, read from their `/metrics` pages and summed: lanes, records read, triggers, the engine's cache."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import aiohttp
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from services.console.models import WorkerState
from services.core.metrics import REGISTRY

_EVERY_S: Final = 2.0
_TIMEOUT_S: Final = 10.0
_MAX_PAGE_BYTES: Final = 8_388_608

Pages = Callable[[], Awaitable[Sequence[str | None]]]
"""Returns the metrics page of each worker, None for one that does not answer."""


def pages_of(urls: Sequence[str]) -> Pages:
    """Return what reads the pages of workers at `urls`."""

    async def pages() -> Sequence[str | None]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session:
            return await asyncio.gather(*(_page(session, url) for url in urls))

    return pages


async def own_page() -> Sequence[str]:
    """Return the metrics page of this process, for a console in the same process as its workers."""
    return [generate_latest(REGISTRY).decode()]


async def _page(session: aiohttp.ClientSession, url: str) -> str | None:
    try:
        async with session.get(f"{url.rstrip('/')}/metrics") as answer:
            if answer.status != 200:  # noqa: PLR2004 - HTTP's
                return None
            body = b""
            async for chunk in answer.content.iter_chunked(65_536):
                body += chunk
                if len(body) > _MAX_PAGE_BYTES:
                    return None
            return body.decode(errors="replace")
    except (aiohttp.ClientError, TimeoutError):
        return None


class WorkerMetrics:
    """The last sums."""

    def __init__(self, pages: Pages) -> None:
        """Read from `pages`."""
        self._pages = pages
        self.state = summed([])

    async def run(self) -> None:
        """Read every two seconds; cancel to end."""
        while True:
            self.state = summed(await self._pages())
            await asyncio.sleep(_EVERY_S)


def summed(pages: Sequence[str | None]) -> WorkerState:
    """Return the sums over the pages that answered; a page that is not Prometheus' format counts as none."""
    sums: dict[str, float] = defaultdict(float)
    lanes: dict[str, float] = defaultdict(float)
    records: dict[str, float] = defaultdict(float)
    silent: list[float] = []
    reachable = 0
    for page in pages:
        try:
            samples = [one for family in text_string_to_metric_families(page or "") for one in family.samples]
        except ValueError:
            continue
        reachable += bool(samples)
        for sample in samples:
            name = sample.name.removeprefix("aquiline_")
            if name == "lanes":
                lanes[sample.labels.get("state", "")] += sample.value
            elif name == "records_total":
                records[sample.labels.get("outcome", "")] += sample.value
            elif name == "engine_silent_seconds":
                silent.append(sample.value)
            else:
                sums[name] += sample.value
    answers = sums["accept_length_tokens_count"]
    return WorkerState(
        reachable=reachable,
        configured=len(pages),
        lanes=dict(lanes),
        records=dict(records),
        triggers=sums["triggers_total"],
        ended=sums["outcomes_total"],
        unfinished_records=sums["unfinished_records"],
        kv_tokens=sums["engine_kv_tokens"],
        prefix_tokens=sums["live_prefix_tokens"],
        engine_silent_s=max(silent, default=None),
        accept_length=sums["accept_length_tokens_sum"] / answers if answers else None,
    )
