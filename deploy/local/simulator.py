"""The inference simulator as one process, which stands in for an engine on a GPU."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from deploy.local.process import LocalServer


class LocalSimulator(LocalServer):
    """`python -m services.inference.simulator` on loopback."""

    name = "simulator"

    def __init__(self, folder: Path, *, port: int | None = None, detached: bool = False) -> None:
        """Keep the log in `folder`; listen on `port` of loopback, or a free one."""
        super().__init__(folder, port=port, detached=detached)

    @property
    def url(self) -> str:
        """Return the address for `engine.urls`."""
        return f"http://127.0.0.1:{self.port}"

    def _prepare(self) -> None:
        """Prepare nothing."""

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "services.inference.simulator", "--host", "127.0.0.1", "--port", str(self.port)]

    def _environment(self) -> Mapping[str, str]:
        return {"PYTHONPATH": str(Path(__file__).parents[2])}

    def _serves(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=1.0) as answer:  # noqa: S310 - loopback
                healthy: bool = answer.status == HTTPStatus.OK
                return healthy
        except (urllib.error.URLError, OSError):
            return False
