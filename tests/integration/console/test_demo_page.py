"""The demo as its README starts it, followed in a real browser from the address that it prints."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from selenium.webdriver import Chrome

from deploy.local.process import free_port
from schemas import AuditRecord
from services.demo.report import AUDIT, REPORT
from tests.integration.console.page import Page
from tests.integration.fusion.waiting import until
from tests.integration.fusion.worker import REPOSITORY

pytestmark = pytest.mark.integration

SYMBOL = "AAPL.XNAS"
# Without the real model, and for longer than the test looks at it.
ARGUMENTS = ("--model-bars", "0", "--symbols", "AAPL,MSFT", "--bars", "600", "--pace", "2", "--no-burst", "--no-outage")


class RunningDemo:
    """A demo in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self.output = output

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    async def address(self) -> str:
        """Return the console's address, with the token, once the demo has printed it."""

        def printed() -> re.Match[str] | None:
            assert self.process.poll() is None, self.said()
            return re.search(r"Console: (http://\S+#token=\S+)\s", self.said())

        await until(lambda: printed() is not None, "the console's address", told=self.said)
        match = printed()
        assert match is not None
        return match[1]

    async def interrupt(self) -> int:
        """End it as Ctrl-C does, and return its exit status."""
        self.process.send_signal(signal.SIGINT)
        await until(lambda: self.process.poll() is not None, "the demo to end", told=self.said)
        assert self.process.returncode is not None
        return self.process.returncode


@contextmanager
def running_demo(folder: Path) -> Iterator[RunningDemo]:
    output = folder / "output"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AQUILINE_")}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from services.cli.main import main; main()",
                "demo",
                *ARGUMENTS,
                "--set",
                f"console.port={free_port()}",
            ],
            cwd=folder,
            env={**environment, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield RunningDemo(process, output)
    finally:
        process.kill()
        process.wait()


async def test_the_demo_is_watched_halted_and_a_signal_followed_to_its_prompt(browser: Chrome, tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        address = await demo.address()
        page = Page(browser, address.partition("/#")[0])
        page.size(1440)
        page.scheme("light")
        page.open(address.removeprefix(page.url))
        assert "token" not in page.driver.current_url, "the token leaves the address bar"
        _look_at_every_view(page)
        _follow_a_decision_to_its_prompt(page)
        _halt_and_resume(page)
        _lose_and_regain_the_events(page)
        assert page.errors() == []
        page.leave()
        status = await demo.interrupt()
        assert status == 128 + signal.SIGINT, demo.said()
    audits = {one.trigger_id: one for one in map(AuditRecord.decode, (tmp_path / AUDIT).read_bytes().splitlines())}
    assert any((one.outcome, one.reason) == ("blocked", "halted") for one in audits.values())
    (act,) = orjson.loads((tmp_path / REPORT).read_bytes())["acts"]
    assert all(check["ok"] for check in act["sums"]), act["sums"]


def _look_at_every_view(page: Page) -> None:
    page.until(lambda: "adds up" in page.text("main") and page.all("main tbody .time"), "decisions as they arrive")
    page.until(lambda: re.search(r"\d running", page.text("main")), "the worker's lanes")
    page.click("#nav a[href='/symbol']")
    page.click(f"main a[href='/symbol/{SYMBOL}']")
    page.one(".candles canvas")
    page.until(lambda: page.text("h1") == SYMBOL and "Indicators" in page.text("main"), "the symbol")
    page.click("#nav a[href='/score']")
    page.until(lambda: page.text("h1") == "Score" or page.all(".verdict"), "the score")
    page.click("#nav a[href='/']")
    page.until(lambda: "Why nothing was sent" in page.text("main"), "the overview")


def _follow_a_decision_to_its_prompt(page: Page) -> None:
    page.until(lambda: page.decisions("published"), "a signal")
    page.click(".choices button:nth-child(2)")
    page.until(lambda: page.all("main tbody .outcome-published"), "decisions with a signal")
    page.click("main tbody a[href^='/decision/']")
    page.until(lambda: "This is the prompt that the model got." in page.text("main"), "the prompt, with its hash checked")
    assert "You are the decision step of a systematic trading desk" in page.text(".section.rules pre")
    assert page.text(".answer .decided")
    assert page.all(".answer .followed")
    assert "Simulator's fixed rule" in page.text(".answer")
    assert "aquiline replay --show" in (page.one(".head .quiet").get_attribute("title") or "")
    page.driver.back()
    page.until(lambda: "Why nothing was sent" in page.text("main"), "the overview again")


def _halt_and_resume(page: Page) -> None:
    for reason, state in (("a test of the demo", "HALTED"), ("the test is over", "ACTIVE")):
        page.click("#halt")
        assert not page.all("#halt-token"), "the address has opened a session"
        page.fill("#halt-reason", reason)
        page.click("#halt-confirmed")
        page.click("dialog button[type=submit]")
        page.until(lambda state=state: page.text("#halt") == state, state)
        if state == "HALTED":
            page.until(lambda: any(row["reason"] == "halted" for row in page.decisions("blocked")), "a trigger that the halt blocked")
            blocked = {row["trigger_id"] for row in page.decisions("published")}
    page.until(lambda: {row["trigger_id"] for row in page.decisions("published")} - blocked, "signals after the resume")


def _lose_and_regain_the_events(page: Page) -> None:
    newest = page.text("main tbody .time a")
    page.offline(lost=True)
    # Chromium keeps the stream that is open: a symbol's page opens one of its own.
    page.click(f"main a[href='/symbol/{SYMBOL}']")
    page.until(lambda: page.text("#link-state") == "Reconnecting" and "trying again" in page.text("#notice"), "the notice")
    page.until(lambda: "The console does not answer" in page.text("main .failed"), "the error of the view")
    page.errors()  # of the requests that failed meanwhile
    page.offline(lost=False)
    page.until(lambda: page.text("#link-state") == "Live" and not page.text("#notice"), "the page to be live again")
    page.until(lambda: page.text("main tbody .time a") > newest, "decisions that came since")
    page.errors()
