"""One desk and one browser for all tests of the console: decisions take seconds to make, and a browser to start."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from deploy.local import LocalKafka, LocalRedis
from tests.conftest import start_or_skip
from tests.integration.console.desk import Desk, open_desk
from tests.integration.fusion.engines import PacedSimulator


@pytest.fixture(scope="package")
def console_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """Return a Kafka of the console's tests alone: topics have fixed names."""
    with start_or_skip(LocalKafka(tmp_path_factory.mktemp("kafka"))) as kafka:
        yield kafka


@pytest.fixture(scope="package")
def desk(tmp_path_factory: pytest.TempPathFactory, console_kafka: LocalKafka, redis_server: LocalRedis) -> Iterator[Desk]:
    """Return a desk in run mode `demo`."""
    folder = tmp_path_factory.mktemp("desk")
    with PacedSimulator(tmp_path_factory.mktemp("simulator")) as simulator:
        desk = asyncio.run(open_desk(folder, console_kafka.url, redis_server.url, simulator.url))
        try:
            yield desk
        finally:
            desk.close()


@pytest.fixture(scope="package")
def browser() -> Iterator[Chrome]:
    """Return headless Chromium; without one skip, but never in continuous integration."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium and chromedriver are missing; deploy/setup/system installs them (Debian: chromium, chromium-driver)")
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium, chromium-driver)")
    options = ChromeOptions()
    options.binary_location = chromium
    # A sandbox needs rights that containers lack, and /dev/shm is small in them.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1440,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(chromedriver))
    driver.set_script_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()
