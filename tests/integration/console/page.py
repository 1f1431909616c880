"""The console's page in a browser, and what a person does with it."""

from __future__ import annotations

from typing import Any

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE_S = 60


class Page:
    """What a person does with the page."""

    def __init__(self, driver: Chrome, url: str) -> None:
        """`url` is the console's address, without a path."""
        self.driver = driver
        self.url = url

    def open(self, path: str = "/") -> None:
        """Load a path, and return once the page is live."""
        self.driver.get(self.url + path)
        self.until(lambda: self.text("#link-state") == "Live", "the page to be live")

    def leave(self) -> None:
        """Leave the page: one whose console has ended logs each attempt to reach it, into the next test."""
        self.driver.get("about:blank")
        self.errors()

    def size(self, width: int, height: int = 1000) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        )

    def scheme(self, name: str, *, motion: str = "no-preference") -> None:
        """Have the page drawn `light` or `dark`, with or without motion (`reduce`)."""
        features = [{"name": "prefers-color-scheme", "value": name}, {"name": "prefers-reduced-motion", "value": motion}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def offline(self, *, lost: bool) -> None:
        """Take the browser's network away, or give it back."""
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd(
            "Network.emulateNetworkConditions", {"offline": lost, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        )

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

    def decisions(self, outcome: str) -> list[dict[str, Any]]:
        """Return the decisions that ended so, the newest first."""
        rows: list[dict[str, Any]] = self.driver.execute_async_script(
            "fetch(`/api/decisions?outcome=${arguments[0]}&limit=500`).then(one => one.json()).then(arguments[1])", outcome
        )
        return rows

    def errors(self) -> list[str]:
        """Return what the browser has logged as an error since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]  # type: ignore[no-untyped-call]
