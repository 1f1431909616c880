"""A Docker Engine of the repository's own for machines where none runs, with its own data, socket and address range."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from deploy.local.process import LocalError, LocalServer, MissingError

CACHE: Final = Path(__file__).parents[2] / ".cache" / "containers"
_RUN: Final = Path("/run/aquiline-containers")
"""Short, since a path of a Unix socket holds 107 bytes."""
_PROGRAMS: Final = ("dockerd", "tini", "iptables", "unshare", "ip")
_RANGES: Final = ("10.213.0.0/16", "172.29.0.0/16", "192.168.224.0/19")
"""The first that no route of the machine overlaps is used."""
_BRIDGE: Final = "docker0"
_ENGINES_RULE: Final = re.compile(r"DOCKER|\bdocker0\b|\bbr-[0-9a-f]{12}\b")
_FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")
_STOP_S: Final = 60.0
_SUBNET_BITS: Final = 24


class PrivateEngine(LocalServer):
    """A Docker Engine in namespaces of its own for processes and mounts: when it ends, so does every container, however it ended.

    It shares the network of the machine, so that published ports are ports of this machine.
    """

    name = "docker"

    def __init__(self, folder: Path = CACHE / "engine") -> None:
        """Keep images, volumes and log in `folder`."""
        super().__init__(folder, port=None, detached=False)
        self._before: tuple[str, str, bool] | None = None

    @property
    def url(self) -> str:
        """Return the value for `DOCKER_HOST`."""
        return f"unix://{_RUN / 'docker.sock'}"

    def stop(self) -> None:
        """Stop the containers, then the engine, and undo what it changed in the machine's network."""
        if (pid := self.pid) is not None:
            # `unshare` blocks SIGTERM: the signal goes to the engine's init, which is its child beside the guard.
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    if Path(f"/proc/{child}/comm").read_text().strip() == "tini":
                        os.kill(int(child), signal.SIGTERM)
            until = time.monotonic() + _STOP_S
            while self.pid is not None and time.monotonic() < until:
                time.sleep(0.1)
        super().stop()
        self._restore_network()

    def restart(self) -> None:
        """Stop and start it: containers with a restart policy come back, as after a restart of the machine."""
        self.stop()
        self.start()

    def _prepare(self) -> None:
        missing = [program for program in _PROGRAMS if shutil.which(program) is None]
        if missing or os.geteuid() != 0:
            what = f"`{'`, `'.join(missing)}` are not installed" if missing else "this is not root"
            raise MissingError(
                f"no Docker Engine answers, and one of the repository's own cannot be started: {what}; "
                "start Docker, or run as root after `deploy/setup/system containers`"
            )
        if _run("docker", "--host", self.url, "info").returncode == 0:
            raise LocalError(f"a Docker Engine of another run answers on {self.url}; wait until that run has ended")
        _RUN.mkdir(mode=0o700, exist_ok=True)
        network = _free_range()
        bridge, pool = network.subnets(new_prefix=network.prefixlen + 1)
        configuration = {
            "data-root": str(self.folder / "data"),
            "exec-root": str(_RUN / "exec"),
            "pidfile": str(_RUN / "docker.pid"),
            "hosts": [self.url],
            "bip": f"{bridge[1]}/{_SUBNET_BITS}",
            "default-address-pools": [{"base": str(pool), "size": _SUBNET_BITS}],
            # The machine's limit may be lower than the engine's default, which it then cannot set.
            "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 20_000, "Hard": 20_000}},
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "userland-proxy": True,
        }
        (self.folder / "daemon.json").write_text(json.dumps(configuration, indent=2))
        (_RUN / "docker.pid").unlink(missing_ok=True)
        self._before = (_FORWARDING.read_text().strip(), _forward_policy(), Path(f"/sys/class/net/{_BRIDGE}").exists())

    def _command(self) -> list[str]:
        init = ["tini", "--", "dockerd", "--config-file", str(self.folder / "daemon.json")]
        return ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", *init]

    def _serves(self) -> bool:
        return _run("docker", "--host", self.url, "info").returncode == 0

    def _restore_network(self) -> None:
        if self._before is None:
            return
        forwarding, policy, bridge = self._before
        self._before = None
        if not bridge:
            _run("ip", "link", "delete", _BRIDGE)
            _forget_rules()
        _run("iptables", "-P", "FORWARD", policy)
        _FORWARDING.write_text(forwarding)


@contextlib.contextmanager
def docker_engine() -> Iterator[tuple[Mapping[str, str], PrivateEngine | None]]:
    """Yield how `docker` reaches an engine: the machine's own if it answers, else a private one, which ends afterwards."""
    if shutil.which("docker") is not None and _run("docker", "info").returncode == 0:
        yield {}, None
        return
    with PrivateEngine() as engine:
        yield {"DOCKER_HOST": engine.url}, engine


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours


def _forward_policy() -> str:
    rules = _run("iptables", "-S", "FORWARD").stdout.split()
    return rules[2] if rules[:2] == ["-P", "FORWARD"] else "ACCEPT"


def _forget_rules() -> None:
    """Delete the engine's chains and rules; every other rule stays."""
    kept = [line for line in _run("iptables-save").stdout.splitlines() if not _ENGINES_RULE.search(line)]
    subprocess.run(["iptables-restore"], input="\n".join(kept) + "\n", text=True, capture_output=True, check=False)  # noqa: S607 - the one on PATH


def _free_range() -> ipaddress.IPv4Network:
    routes = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        _, destination, _, _, _, _, _, mask, *_ = line.split()
        address, netmask = (int.from_bytes(bytes.fromhex(word), "little") for word in (destination, mask))
        if netmask:
            routes.append(ipaddress.IPv4Network((address, netmask.bit_count())))
    for candidate in map(ipaddress.IPv4Network, _RANGES):
        if not any(candidate.overlaps(route) for route in routes):
            return candidate
    raise LocalError(f"this machine has routes into each of {', '.join(_RANGES)}, so containers get no addresses of their own")
