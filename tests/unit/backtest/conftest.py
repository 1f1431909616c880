"""Log lines of every decision would be most of a run's time."""

from __future__ import annotations

import pytest

from services.core import logs
from services.core.settings import LogSettings


@pytest.fixture(autouse=True)
def quiet(logs_as_they_were: None) -> None:  # noqa: ARG001 - which undoes it
    """Write errors alone."""
    logs.configure(LogSettings(level="error"), service="test")
