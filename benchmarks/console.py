"""The console under 500 events a second: frames and memory of the page, memory of the service, delay of a client beside a stuck one.

A broker, the console as a process of its own, headless Chromium on the overview, a client that reads every event, and one that opens
the event stream and never reads. Frames are counted in the browser: one that comes more than 50 ms after the one before it is late.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid5

import aiohttp
import orjson
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from benchmarks.feed import MODE
from benchmarks.harness import Measured, Target, percentile, run_alone, say
from benchmarks.local import kafka
from deploy.local.process import free_port
from schemas import AuditRecord, MarketFeatures, Message, Outcome, Signal, Topic, topic_name
from schemas.examples import EXAMPLES
from services.core.bus.kafka import KafkaBus
from services.core.clock import SystemClock
from services.core.settings import BusSettings

EVENTS_PER_S: Final = 500
SECONDS: Final = 300
_SYMBOLS: Final = 50
_NAMESPACE: Final = UUID("0e9d0f7e-8f6d-4f39-9d3a-2f0f6d7b5c11")
_MEMORY_BYTES: Final = 33_554_432
"""Of the console: small, so that it fills within the run."""
_TICKS_PER_S: Final = 10
_FRAMES: Final = """
window.frames_seen = {count: 0, late: 0, worst: 0, last: performance.now()};
(function tick(now) {
  const gap = now - frames_seen.last;
  frames_seen.last = now;
  frames_seen.count += 1;
  if (gap > 50) frames_seen.late += 1;
  frames_seen.worst = Math.max(frames_seen.worst, gap);
  requestAnimationFrame(tick);
})(performance.now());
"""


@dataclass
class Reader:
    """What the client that reads everything has seen."""

    delays_ms: list[float] = field(default_factory=list)
    resyncs: int = 0
    decisions: int = 0


async def measure(quick: bool) -> Measured:  # noqa: FBT001 - the harness calls it
    """Publish for five minutes, and look at both ends."""
    seconds = 15 if quick else SECONDS
    async with kafka(4) as server, _console(server.url) as (url, pid):
        driver = await asyncio.to_thread(_browser, url)
        stuck = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        stuck.sendall(f"GET /api/events HTTP/1.1\r\nHost: {url.removeprefix('http://')}\r\n\r\n".encode())
        reader = Reader()
        sent_at: dict[str, float] = {}
        reading = asyncio.create_task(_read(url, reader, sent_at))
        try:
            rss = [_rss_mb(pid)]
            sent = 0
            async for count in _publish(server.url, seconds, sent_at):
                sent += count
                rss.append(_rss_mb(pid))
            await asyncio.sleep(3)
            seen = await asyncio.to_thread(_page, driver)
        finally:
            reading.cancel()
            stuck.close()
            await asyncio.to_thread(driver.quit)
    half = rss[len(rss) // 2]
    frames = seen["frames"]
    return Measured(
        rows=[
            {
                "events": sent,
                "seconds": seconds,
                "decisions_read": reader.decisions,
                "resyncs": reader.resyncs,
                "delay_p50_ms": round(percentile(reader.delays_ms, 0.5), 1),
                "delay_p95_ms": round(percentile(reader.delays_ms, 0.95), 1),
                "frames": frames["count"],
                "late_frames": frames["late"],
                "worst_frame_ms": round(frames["worst"], 1),
                "page_heap_mb_start": round(seen["heap_start"] / 1e6, 1),
                "page_heap_mb_end": round(seen["heap_end"] / 1e6, 1),
                "console_rss_mb_start": round(rss[0], 1),
                "console_rss_mb_half": round(half, 1),
                "console_rss_mb_end": round(rss[-1], 1),
            }
        ],
        setting={
            "events_per_s": EVENTS_PER_S,
            "symbols": _SYMBOLS,
            "max_memory_bytes": _MEMORY_BYTES,
            "clients": "page, reader, stuck client",
        },
        targets=[
            Target("events that the reading client missed", 0, at_least=False, got=reader.resyncs, unit="resyncs"),
            Target(
                "growth of the console's memory in the second half", 10, at_least=False, got=round(100 * (rss[-1] / half - 1), 1), unit="%"
            ),
            Target("frames that came late", 5, at_least=False, got=round(100 * frames["late"] / max(1, frames["count"]), 1), unit="%"),
        ],
        notes=["The browser, the broker and the console share the machine's processors; Chromium draws without a GPU."],
    )


@asynccontextmanager
async def _console(bus_url: str) -> AsyncIterator[tuple[str, int]]:
    """Run the console, and yield its address and process id once it has read the broker."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="aquiline-benchmark-") as folder:
        config = Path(folder) / "aquiline.toml"
        await asyncio.to_thread(
            config.write_text,
            f'run_mode = "{MODE.value}"\n[bus]\nurl = "{bus_url}"\n[http]\nport = 0\n[log]\nlevel = "error"\n'
            f"[console]\nport = {port}\nmax_memory_bytes = {_MEMORY_BYTES}\nworker_urls = []\n",
        )
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AQUILINE_")}
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.console", "--config", str(config), env=clean)
        url = f"http://127.0.0.1:{port}"
        try:
            async with asyncio.timeout(300):
                while not await _connected(url):
                    await asyncio.sleep(0.5)
            yield url, process.pid
        finally:
            process.terminate()
            await process.wait()


async def _connected(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/api/state") as answer:
            return bool((await answer.json())["now"]["feed"]["connected"])
    except aiohttp.ClientError:
        return False


def _browser(url: str) -> Chrome:
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-precise-memory-info"):
        options.add_argument(argument)
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.get(url)
    while driver.execute_script("return document.querySelector('#link-state').innerText") != "Live":
        time.sleep(0.2)
    driver.execute_script(_FRAMES + "window.heap_start = performance.memory.usedJSHeapSize")
    return driver


def _page(driver: Chrome) -> dict[str, Any]:
    driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    seen: dict[str, Any] = driver.execute_script(
        "return {frames: frames_seen, heap_start: heap_start, heap_end: performance.memory.usedJSHeapSize}"
    )
    return seen


async def _publish(bus_url: str, seconds: int, sent_at: dict[str, float]) -> AsyncIterator[int]:
    """Publish at the wanted pace; yield each second how many events were published in it."""
    bus = KafkaBus(BusSettings(url=bus_url), SystemClock())
    producer = await bus.producer(client_id="benchmark")
    number, started = 0, time.perf_counter()
    try:
        for second in range(seconds):
            for tick in range(_TICKS_PER_S):
                due = started + second + tick / _TICKS_PER_S
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                for _ in range(EVENTS_PER_S // _TICKS_PER_S):
                    topic, symbol, message = _event(number)
                    if topic is Topic.SIGNAL_AUDIT:
                        sent_at[str(uuid5(_NAMESPACE, str(number)))] = time.time()
                    await producer.send(topic_name(topic, MODE), key=symbol.encode(), value=message)
                    number += 1
            if second % 30 == 0:
                say(f"{number} events in {time.perf_counter() - started:.0f} s")
            yield EVENTS_PER_S
    finally:
        await producer.close()
        await bus.close()


def _event(number: int) -> tuple[Topic, str, bytes]:
    """Return the `number`-th event: two audit records, a signal and two bars of every five."""
    symbol = f"COIN{number % _SYMBOLS}-USD.CBSE"
    trigger_id, now_ms = uuid5(_NAMESPACE, str(number)), time.time_ns() // 1_000_000
    common: dict[str, Any] = {"run_mode": MODE, "symbol": symbol}
    kind = number % 5
    if kind < 2:
        changes = {
            "trigger_id": trigger_id,
            "signal_id": uuid5(trigger_id, "fast"),
            "ts_done_ms": now_ms,
            "outcome": list(Outcome)[number // 5 % len(Outcome)],
        }
        return Topic.SIGNAL_AUDIT, symbol, _changed(AuditRecord, common | changes)
    if kind == 2:
        changes = {"trigger_id": trigger_id, "signal_id": uuid5(trigger_id, "fast"), "ts_decided_ms": now_ms}
        return Topic.STRATEGY_SIGNALS, symbol, _changed(Signal, common | changes)
    closes_ms = now_ms // 60_000 * 60_000 + 60_000
    changes = {"interval": "1m", "ts_open_ms": closes_ms - 60_000, "ts_close_ms": closes_ms, "closed": False}
    return Topic.MARKET_FEATURES, symbol, _changed(MarketFeatures, common | changes)


def _changed(model: type[Message], changes: dict[str, Any]) -> bytes:
    return EXAMPLES[model].model_copy(update=changes).encode()


async def _read(url: str, reader: Reader, sent_at: dict[str, float]) -> None:
    """Read every event, and note how long each decision took from its publication."""
    timeout = aiohttp.ClientTimeout(None)
    async with aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 22) as session, session.get(f"{url}/api/events") as answer:
        kind = ""
        async for line in answer.content:
            if line.startswith(b"event: "):
                kind = line[7:].strip().decode()
                reader.resyncs += kind == "resync"
            elif line.startswith(b"data: ") and kind == "frame":
                now = time.time()
                for what, value in orjson.loads(line[6:]):
                    if what == "decision" and value["trigger_id"] in sent_at:
                        reader.decisions += 1
                        reader.delays_ms.append(1000 * (now - sent_at.pop(value["trigger_id"])))


def _rss_mb(pid: int) -> float:
    """Return the memory that a process holds, in 10^6 bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    sys.exit(run_alone("console", __doc__, measure))
