"""What all tests share: one real Kafka and one real Redis a session, started on first use, and names that do not collide."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from typing import TypeVar

import pytest
import structlog
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from deploy.local import LocalKafka, LocalRedis, MissingError
from deploy.local.process import LocalServer
from services.core.settings import BusSettings

# Nothing here is judged by how long it took: on cores that others use as well, an example is slow for no fault of its own.
settings.register_profile("aquiline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("aquiline")

Server = TypeVar("Server", bound=LocalServer)


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Undo what a test made of the logs: the stream that it sent them to is closed when it ends."""
    yield
    structlog.reset_defaults()
    root = logging.getLogger()
    for handler in [one for one in root.handlers if type(one) is logging.StreamHandler]:
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """Return the session's Kafka. Tests that kill or freeze a broker start their own."""
    with start_or_skip(LocalKafka(tmp_path_factory.mktemp("kafka"))) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """Return the session's Redis."""
    with start_or_skip(LocalRedis(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture
def kafka_bus_settings(kafka: LocalKafka) -> BusSettings:
    """Return settings for the session's Kafka with short time-outs."""
    return BusSettings(url=kafka.url, session_timeout_ms=3_000, rebalance_timeout_ms=15_000, request_timeout_ms=5_000)


@pytest.fixture
def unique() -> str:
    """Return a prefix for topics and groups that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}"


class _ByFolder(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """Gives each folder's tests to one process, since a folder's tests share its servers and their topics."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0].rpartition("/")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Return how `pytest -n` shares the tests out."""
    return _ByFolder(config, log)


def start_or_skip(server: Server) -> Server:
    """Start the server; where that is impossible skip, but never in continuous integration."""
    try:
        return server.start()
    except MissingError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
