"""The page in a real browser: its views, halt and resume, a lost stream, hostile records, phones, keys, and accessibility."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from schemas import Message, Outcome, Topic
from tests.integration.console.desk import SYMBOLS, TOKEN, Desk
from tests.integration.console.page import Page
from tests.unit.console.records import audit

pytestmark = pytest.mark.integration

AXE = Path(__file__).with_name("axe") / "axe.min.js"
HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\u202egnp.exe\u0007\u0000 {{7*7}}"


@pytest.fixture
def page(browser: Chrome, desk: Desk) -> Iterator[Page]:
    page = Page(browser, desk.url)
    page.size(1440)
    page.scheme("light")
    page.open()
    page.errors()
    yield page
    assert page.errors() == []


def _published(page: Page) -> dict[str, Any]:
    """Return the newest decision of the worker that has a signal; other tests publish records of other symbols."""
    return next(row for row in page.decisions("published") if row["symbol"] in SYMBOLS)


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


def test_a_console_that_ends_is_told_and_one_that_comes_back_is_followed_again(page: Page, desk: Desk) -> None:
    desk.console.kill()
    page.until(lambda: "trying again" in page.text("#notice"), "the notice")
    assert page.text("#link-state") == "Reconnecting"
    assert page.all("main tbody tr"), "what was there stays"
    desk.start_console()
    page.until(lambda: page.text("#link-state") == "Live", "the page to be live again")
    page.until(lambda: not page.text("#notice"), "the notice to go")
    page.errors()  # of the requests that were refused meanwhile


async def test_what_comes_from_a_topic_is_text_whatever_it_holds(page: Page, desk: Desk) -> None:
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
        await desk.publish(topic, [("x", message)])
    page.until(lambda: "Unreadable records" in page.text("main"), "the unreadable records")
    page.until(lambda: "<script>window.hacked = 1</script>" in page.text("main"), "the hostile text, as text")
    page.driver.get(f"{desk.url}/decision/{hostile.trigger_id}")
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
    trigger_id = _published(page)["trigger_id"]
    return {
        "/": "Why nothing was sent",
        f"/symbol/{SYMBOLS[0]}": "Indicators",
        f"/decision/{trigger_id}": "tokens",
        "/score": "Calibration",
        "/symbol": "Last close",
    }


def test_an_answer_is_shown_as_it_streamed(page: Page) -> None:
    page.open(f"/decision/{_published(page)['trigger_id']}")
    slider = page.one(".stream input")
    whole = page.text(".stream output")
    pieces = len(page.all(".answer span"))
    assert pieces > 2
    assert not page.all(".answer .unseen")
    seen = pieces
    while seen:
        slider.send_keys(Keys.ARROW_LEFT)
        left = pieces - len(page.all(".answer .unseen"))
        assert left < seen, "each key press takes a piece away"
        seen = left
    assert "0 of" in page.text(".stream output")
    slider.send_keys(Keys.ARROW_RIGHT)
    assert 0 < len(page.all(".answer .unseen")) < pieces
    page.click(".stream .play")
    page.until(lambda: not page.all(".answer .unseen") and page.text(".stream .play") == "Play", "the whole answer")
    assert page.text(".stream output") == whole
    page.scheme("light", motion="reduce")
    assert not page.one(".stream .play").is_displayed()


def test_every_view_fits_a_phone(page: Page) -> None:
    page.size(390, 844)
    for path, ready in _views(page).items():
        page.open(path)
        page.until(lambda ready=ready: ready in page.text("main"), ready)
        assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 390, path


def test_the_keyboard_reaches_a_decision_by_its_id(page: Page) -> None:
    wanted: str = _published(page)["signal_id"]
    page.one("body").send_keys("/")
    page.driver.switch_to.active_element.send_keys(wanted[:18] + Keys.ENTER)
    page.until(lambda: wanted in page.text("main"), "the decision")
    page.one("body").send_keys("/")
    page.driver.switch_to.active_element.send_keys("ffffffff" + Keys.ENTER)
    page.until(lambda: "aquiline replay --show ffffffff" in page.text("main"), "the way to older decisions")
    page.errors()  # of the decision that is not there
