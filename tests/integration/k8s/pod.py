"""A pod's container as a process: the command, variables, files and probes of its manifest, without a cluster.

What a cluster would give is stood in for: names of services and pods are addresses of loopback, a mount is a folder of the test
(a secret's with the links that the kubelet makes), and a named port is a free one. Nothing else is changed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from deploy.check.k8s.rendered import Rendered
from deploy.local.process import free_port


class Pod:
    """The first pod of a workload of `overlay`; `addresses` says where `host:port` of the manifests is to be found here."""

    def __init__(self, folder: Path, overlay: Rendered, name: str, addresses: Mapping[str, str], secrets: Mapping[str, str]) -> None:
        """Lay out its files; `secrets` holds the text of each key of every secret."""
        self.workload = overlay.workload(name)
        self.folder = folder / name
        self.folder.mkdir(parents=True)
        self._overlay = overlay
        self._addresses = dict(addresses)
        self._container: Mapping[str, Any] = self.workload.pod["containers"][0]
        self.ports = {port["name"]: free_port() for port in self._container.get("ports", [])}
        self.console_port = free_port()
        self._mounts: dict[str, Path] = {}
        self._mounts = {one["mountPath"]: self._volume(one["name"], secrets) for one in self._container.get("volumeMounts", [])}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the command as the container would."""
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._here(word) for word in self.workload.command],
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def passes(self, probe: str) -> bool:
        """Ask as the probe of that name does; raise AssertionError once the process has ended."""
        assert self.ended is None, f"{self.workload.name} ended with {self.ended}\n{self.log}"
        asked = self._container[probe]["httpGet"]
        address = f"http://127.0.0.1:{self.ports[asked['port']]}{asked['path']}"
        try:
            async with aiohttp.ClientSession() as session, session.get(address, timeout=aiohttp.ClientTimeout(total=5)) as answer:
                return answer.ok
        except (aiohttp.ClientError, TimeoutError):
            return False

    def terminate(self) -> int:
        """End it as the kubelet does, within its grace period, and return the exit code; raise TimeoutExpired past that."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(self.workload.pod["terminationGracePeriodSeconds"])

    def kill(self) -> None:
        """End it, whatever it is at."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def ended(self) -> int | None:
        """Return the exit code, None while it runs."""
        assert self._process is not None
        return self._process.poll()

    @property
    def log(self) -> str:
        """Return the end of what it has written."""
        return (self.folder / "log").read_text(errors="replace")[-2_000:]

    def _environment(self) -> dict[str, str]:
        inherited = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[3])}
        fields = {
            one["name"]: f"{self.workload.name}-0"
            for one in self._container.get("env", [])
            if one.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath") == "metadata.name"
        }
        # The ports of a pod are its own, those of this machine are not.
        ours = "services." in " ".join(self.workload.command)
        port = {"AQUILINE_HTTP__PORT": str(self.ports["http"]), "AQUILINE_CONSOLE__PORT": str(self.console_port)} if ours else {}
        return inherited | fields | port | {name: self._here(value) for name, value in self.workload.variables.items()}

    def _volume(self, name: str, secrets: Mapping[str, str]) -> Path:
        """Return the folder that stands for a volume, filled as the kubelet fills it."""
        folder = self.folder / name
        folder.mkdir()
        (volume,) = [one for one in self.workload.pod["volumes"] if one["name"] == name]
        files = self._files(volume, secrets)
        if files:
            version = folder / "..2026_11_27_19_00_00.123456789"
            version.mkdir()
            (folder / "..data").symlink_to(version.name)
        for key, text in files.items():
            (version / key).write_text(text)
            (folder / key).symlink_to(f"..data/{key}")
        return folder

    def _files(self, volume: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, str]:
        if "configMap" in volume:
            (held,) = [one for one in self._overlay.of_kind("ConfigMap") if one["metadata"]["name"] == volume["configMap"]["name"]]
            return {key: self._here(text) for key, text in held["data"].items()}
        sources = [one["secret"] for one in volume.get("projected", {}).get("sources", [])]
        return {item["path"]: secrets[item["key"]] for source in sources for item in source["items"]}

    def _here(self, text: str) -> str:
        for there, here in self._addresses.items():
            text = text.replace(there, here)
        text = text.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - replaced, not bound
        for port in self._container.get("ports", []):
            if text == str(port["containerPort"]):
                text = str(self.ports[port["name"]])
        for path, folder in self._mounts.items():
            if text == path or text.startswith(f"{path}/"):
                return f"{folder}{text.removeprefix(path)}"
        return text
