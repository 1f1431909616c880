"""The page in a real browser: its views, halt and resume, a lost stream, hostile records, phones, keys, and accessibility."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from schemas import Message, Outcome, Topic
from tests.integration.console.desk import SYMBOLS, TOKEN, Desk
from tests.unit.console.records import audit

pytestmark = pytest.mark.integration

PATIENCE_S = 60
AXE = Path(__file__).with_name("axe") / "axe.min.js"
HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\u202egnp.exe\u0007\u0000 {{7*7}}"


class Page:
    """What a person does with the page."""

    def __init__(self, driver: Chrome, desk: Desk) -> None:
        self.driver = driver
        self.desk = desk

    def open(self, path: str = "/") -> None:
        """Load an address, and wait for the page to be live."""
        self.driver.get(self.desk.url + path)
        self.until(lambda: self.text("#link-state") == "Live", "the page to be live")

    def size(self, width: int, height: int = 1000) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        )

    def scheme(self, name: str) -> None:
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": name}]})

    def until(self, holds: Any, what: str) -> None:
        WebDriverWait(self.driver, PATIENCE_S, poll_frequency=0.2).until(
            lambda _: holds(), f"waited in vain for {what}: {self.text('main')[:500]}"
        )

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        self.until(lambda: self.all(selector), selector)
        return self.all(selector)[0]

    def text(self, selector: str) -> str:
        """Return the text of the first element, as the browser has it now."""
        said: str | None = self.driver.execute_script("return document.querySelector(arguments[0])?.innerText", selector)
        return said or ""

    def click(self, selector: str) -> None:
        # Rows are drawn anew as events come: find and click in one step.
        self.until(
            lambda: self.driver.execute_script("const one = document.querySelector(arguments[0]); one?.click(); return !!one", selector),
            selector,
        )

    def fill(self, selector: str, text: str) -> None:
        self.one(selector).send_keys(text)

    def published(self) -> dict[str, Any]:
        """Return the newest decision of the worker that has a signal."""
        rows: list[dict[str, Any]] = self.driver.execute_async_script(
            "fetch('/api/decisions?outcome=published&limit=500').then(one => one.json()).then(arguments[0])"
        )
        return next(row for row in rows if row["symbol"] in SYMBOLS)

    def errors(self) -> list[str]:
        """Return what the browser has logged as an error since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]  # type: ignore[no-untyped-call]


@pytest.fixture
def page(browser: Chrome, desk: Desk) -> Iterator[Page]:
    page = Page(browser, desk)
    page.size(1440)
    page.scheme("light")
    page.open()
    page.errors()
    yield page
    assert page.errors() == []


def test_the_four_views_are_a_click_away_and_a_decision_leads_to_its_prompt(page: Page) -> None:
    assert "adds up" in page.text("main")
    page.until(lambda: "1 running" in page.text("main") or "0 running" in page.text("main"), "the worker's lanes")
    page.click("#nav a[href='/symbol']")
    page.click(f"main a[href='/symbol/{SYMBOLS[0]}']")
    page.until(lambda: page.text("h1") == SYMBOLS[0], "the symbol's name")
    page.one(".candles canvas")
    page.until(lambda: "Indicators" in page.text("main"), "the indicators")
    page.click("#nav a[href='/score']")
    page.until(lambda: "Calibration" in page.text("main") and "NO MODEL WAS ASKED" in page.text("main"), "the score")
    page.click("#nav a[href='/']")
    page.click(".choices button:nth-child(2)")
    page.until(lambda: all(one == "published" for one in _column(page, 3)), "published decisions alone")
    page.click(f"main a[href='/decision/{page.published()['trigger_id']}']")
    page.until(lambda: "This is the prompt that the model got." in page.text("main"), "the prompt")
    assert "You are the decision step of a systematic trading desk" in page.text(".section.rules pre")
    assert page.text(".answer .decided")
    assert "Simulator's fixed rule" in page.text(".answer .followed")
    assert "epoch boundary" in page.text(".prompt")
    page.driver.back()
    page.until(lambda: "Decisions" in page.text("main"), "the overview again")


def _column(page: Page, number: int) -> list[str]:
    said: list[str] = page.driver.execute_script(
        "return [...document.querySelectorAll(`main tbody tr td:nth-child(${arguments[0]}) .pill:first-child`)].map(one => one.innerText)",
        number,
    )
    return said


def test_everything_is_halted_and_resumed_with_reason_confirmation_and_token(page: Page) -> None:
    page.until(lambda: page.text("#halt") == "ACTIVE", "the state")
    page.click("#halt")
    page.fill("#halt-reason", "a test of the page")
    page.fill("#halt-token", "not the token at all")
    page.click("#halt-confirmed")
    page.click("dialog button[type=submit]")
    page.until(lambda: "this is not the console's token" in page.text("dialog .problem:not([hidden])"), "the refusal")
    page.one("#halt-token").clear()
    page.fill("#halt-token", TOKEN)
    page.click("dialog button[type=submit]")
    page.until(lambda: page.text("#halt") == "HALTED", "the halt")
    page.click("#nav a[href='/score']")
    page.click("#halt")
    assert not page.all("#halt-token")
    page.fill("#halt-reason", "the test is over")
    page.click("#halt-confirmed")
    page.click("dialog button[type=submit]")
    page.until(lambda: page.text("#halt") == "ACTIVE", "the end of the halt")
    # The browser logs the refused token as an error of its own.
    assert all("401" in one for one in page.errors())


def test_a_console_that_ends_is_told_and_one_that_comes_back_is_followed_again(page: Page) -> None:
    page.desk.console.kill()
    page.until(lambda: "trying again" in page.text("#notice"), "the notice")
    assert page.text("#link-state") == "Reconnecting"
    assert page.all("main tbody tr"), "what was there stays"
    page.desk.start_console()
    page.until(lambda: page.text("#link-state") == "Live", "the page to be live again")
    page.until(lambda: not page.text("#notice"), "the notice to go")
    page.errors()  # of the requests that were refused meanwhile


async def test_what_comes_from_a_topic_is_text_whatever_it_holds(page: Page) -> None:
    rationale = f'{{"action":"hold","rationale":"{HOSTILE}"}}'
    hostile = audit(20_001, Outcome.FAILED, reason="answer", detail=HOSTILE, answer=rationale, model=HOSTILE)
    pattern = b'{"symbol":"X","patterns":[{"label":"' + HOSTILE.encode() + b'"}]}'
    records: list[tuple[Topic, Message | bytes]] = [
        (Topic.SIGNAL_AUDIT, hostile),
        (Topic.SIGNAL_AUDIT, audit(20_002).encode().replace(b"BTC-USD.CBSE", HOSTILE.replace('"', "'").encode())),
        (Topic.SIGNAL_AUDIT, audit(20_003, answer="y").encode().replace(b'"y"', b'"' + b"z" * 100_000 + b'"')),
        (Topic.VISION_FEATURES, pattern),
    ]
    for topic, message in records:
        await page.desk.publish(topic, [("x", message)])
    page.until(lambda: "Unreadable records" in page.text("main"), "the unreadable records")
    page.until(lambda: "<script>window.hacked = 1</script>" in page.text("main"), "the hostile text, as text")
    page.driver.get(f"{page.desk.url}/decision/{hostile.trigger_id}")
    page.until(lambda: "onerror" in page.text(".answer"), "the answer")
    assert "\\u202egnp.exe\\u0007\\u0000" in page.text(".answer")
    assert "\u202e" not in page.text("body")
    assert page.driver.execute_script("return [window.hacked, document.scripts.length, document.querySelectorAll('main img').length]") == [
        None,
        1,
        0,
    ]
    assert page.driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    page.open("/")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_view_has_a_serious_accessibility_problem(page: Page, scheme: str) -> None:
    page.scheme(scheme)
    for path, ready in _views(page).items():
        page.open(path)
        page.until(lambda ready=ready: ready in page.text("main"), ready)
        page.driver.execute_script(AXE.read_text())
        found = page.driver.execute_async_script(
            "axe.run(document, {resultTypes: ['violations']}).then(one => arguments[arguments.length - 1](one.violations))"
        )
        serious = [
            (one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found if one["impact"] in {"serious", "critical"}
        ]
        assert serious == [], (path, scheme)


def _views(page: Page) -> dict[str, str]:
    """Return the address of each view, and a word that it has once it is there."""
    trigger_id = page.published()["trigger_id"]
    return {
        "/": "Why nothing was sent",
        f"/symbol/{SYMBOLS[0]}": "Indicators",
        f"/decision/{trigger_id}": "tokens",
        "/score": "Calibration",
        "/symbol": "Last close",
    }


def test_every_view_fits_a_phone(page: Page) -> None:
    page.size(390, 844)
    for path, ready in _views(page).items():
        page.open(path)
        page.until(lambda ready=ready: ready in page.text("main"), ready)
        assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 390, path


def test_the_keyboard_reaches_a_decision_by_its_id(page: Page) -> None:
    wanted: str = page.published()["signal_id"]
    page.one("body").send_keys("/")
    page.driver.switch_to.active_element.send_keys(wanted[:18] + Keys.ENTER)
    page.until(lambda: wanted in page.text("main"), "the decision")
    page.one("body").send_keys("/")
    page.driver.switch_to.active_element.send_keys("ffffffff" + Keys.ENTER)
    page.until(lambda: "aquiline replay --show ffffffff" in page.text("main"), "the way to older decisions")
    page.errors()  # of the decision that is not there
