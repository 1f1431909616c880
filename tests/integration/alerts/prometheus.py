"""A real Prometheus with the configuration and the rules of `deploy/prometheus`, in which a minute takes a second."""

from __future__ import annotations

import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from deploy.check.series import FOLDER
from deploy.local.process import LocalServer, MissingError
from tests.integration.fusion.waiting import until

FASTER: Final = 60

_UNIT_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION: Final = re.compile(r"(?P<before>\[|\b(?:for|[a-z]+_interval|scrape_timeout): )(?P<count>\d+)(?P<unit>[smhd])\b")
_LIMIT: Final = re.compile(r"(?P<before>_seconds(?:\{[^}]*\})?\)* [<>] )(?P<seconds>\d+(?:\.\d+)?)")


def sped_up(text: str) -> str:
    """Return a configuration or rules in which every time is a sixtieth.

    That is every window (`[10m]`), `for`, interval and time-out, and every limit that a metric in `_seconds` is held against.
    """

    def shorter(found: re.Match[str]) -> str:
        return f"{found['before']}{int(found['count']) * _UNIT_S[found['unit']] * 1_000 // FASTER}ms"

    def lower(found: re.Match[str]) -> str:
        return f"{found['before']}{float(found['seconds']) / FASTER:g}"

    return _LIMIT.sub(lower, _DURATION.sub(shorter, text))


class LocalPrometheus(LocalServer):
    """Prometheus on loopback; `addresses` says where each `host:port` of its configuration is to be found."""

    name = "prometheus"

    def __init__(self, folder: Path, addresses: Mapping[str, str]) -> None:
        """Keep configuration, rules and data in `folder`. A job none of whose hosts is in `addresses` is left out."""
        super().__init__(folder, port=None, detached=False)
        self._addresses = addresses

    @property
    def url(self) -> str:
        """Return the address of its API."""
        return f"http://127.0.0.1:{self.port}"

    async def alerts(self, state: str) -> list[Mapping[str, str]]:
        """Return the labels of the alerts that are `pending` or `firing`."""
        told = await self._ask("/api/v1/alerts")
        return [alert["labels"] for alert in told["alerts"] if alert["state"] == state]

    async def query(self, expression: str) -> list[Mapping[str, Any]]:
        """Return the series of an instant query; raise AssertionError when it is refused."""
        return list((await self._ask("/api/v1/query", query=expression))["result"])

    async def fires(self, name: str, told: Callable[[], object], **labels: str) -> None:
        """Return once the alert fires with `labels`."""
        found: list[Mapping[str, str]] = []

        async def firing() -> bool:
            found[:] = await self.alerts("firing")
            return any(one["alertname"] == name and labels.items() <= one.items() for one in found)

        await until(firing, f"{name} to fire with {labels}", told=lambda: f"firing: {found}\n{told()}")

    async def rests(self, *names: str, told: Callable[[], object]) -> None:
        """Return once none of these alerts is firing or pending."""
        found: list[Mapping[str, str]] = []

        async def quiet() -> bool:
            found[:] = [one for state in ("firing", "pending") for one in await self.alerts(state) if one["alertname"] in names]
            return not found

        await until(quiet, f"{', '.join(names)} not to fire", told=lambda: f"they do: {found}\n{told()}")

    def _prepare(self) -> None:
        (self.folder / "rules").mkdir(exist_ok=True)
        for file in (FOLDER / "rules").glob("*.yml"):
            (self.folder / "rules" / file.name).write_text(sped_up(file.read_text()))
        config = yaml.safe_load(sped_up((FOLDER / "prometheus.yml").read_text()))
        # A sixtieth of ten seconds is less than a busy machine takes to answer.
        config["global"]["scrape_timeout"] = config["global"]["scrape_interval"]
        config["scrape_configs"] = [job for job in map(self._on_loopback, config["scrape_configs"]) if job["static_configs"]]
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def _on_loopback(self, job: Mapping[str, Any]) -> dict[str, Any]:
        there = [target for one in job.get("static_configs", []) for target in one["targets"]]
        there += [f"{name}:{one['port']}" for one in job.get("dns_sd_configs", []) for name in one["names"]]
        here = [self._addresses[target] for target in there if target in self._addresses]
        return {"job_name": job["job_name"], "static_configs": [{"targets": here}] if here else []}

    def _command(self) -> list[str]:
        program = shutil.which("prometheus")
        if program is None:
            raise MissingError(
                "alerts are tested with Prometheus, and `prometheus` is not installed (Debian: `apt-get install prometheus`)"
            )
        return [
            program,
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def _serves(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1.0) as answer:  # noqa: S310 - loopback
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    async def _ask(self, path: str, **parameters: str) -> Any:
        async with aiohttp.ClientSession() as session, session.get(self.url + path, params=parameters) as answer:
            said = await answer.json()
        assert said["status"] == "success", said
        return said["data"]
