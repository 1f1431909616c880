"""The stack of `docker-compose.yml` without containers, against a local Kafka and Redis.

Each of our services is a process with the command, the environment and the health check that the file declares, started in the order
that it declares. What containers would give is stood in for, and nothing else is changed:

- a host of the file's networks with its port is an address of loopback (`Stack.addresses`, such as `fusion:9400`), and so is 0.0.0.0;
- a mounted volume or tmpfs is a folder of the test, one a volume or one a service, wherever its path stands in command or variables;
- Kafka and Redis are local servers with the declared properties and arguments but for addresses (`kafka_properties`);
- `PATH` holds this environment's programs first, as the image's does its own, and no other variable is handed on.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from deploy.check import composefile
from deploy.local import LocalKafka, LocalRedis, LocalSecurity
from deploy.local.process import free_port
from services.core.settings import Settings, load
from tests.integration.fusion.waiting import until

REPOSITORY: Final = Path(__file__).parents[3]
PATIENCE_S: Final = 240.0
_OURS: Final = "aquiline/"
_HTTP_PORT: Final = 9400
_ENGINE_PORT: Final = 30_000


class Stack:
    """One run of the file's profile `default`.

    Kafka runs already; Redis is started where the file starts it, with its arguments and so with the ACL file of the stack's own
    secrets. With `security` it wants TLS, as Kafka does. `variables` are added to every service of ours. Close it, whatever happened.
    """

    def __init__(
        self,
        folder: Path,
        kafka: LocalKafka,
        *,
        security: LocalSecurity | None = None,
        variables: Mapping[str, str] | None = None,
        without: Iterable[str] = (),
    ) -> None:
        """Prepare in `folder`, which is made. Services named in `without` are left out, and nobody waits for them."""
        folder.mkdir(parents=True)
        self.folder = folder
        declared = composefile.load().of_profiles("default")
        self.declared: dict[str, Mapping[str, Any]] = {name: one for name, one in declared.items() if name not in set(without)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.started: list[str] = []
        """Names in the order in which they were started."""
        self.kafka = kafka
        self._variables = dict(variables or {})
        self._reached: dict[str, asyncio.Event] = {name: asyncio.Event() for name in self.declared}
        self.addresses: dict[str, str] = {}
        """Where `host:port` of the file is to be found: `127.0.0.1:port`."""
        for name, service in self.declared.items():
            if service["image"].startswith(_OURS):
                host, port = ("engine", _ENGINE_PORT) if name == "simulator" else (name, _HTTP_PORT)
                self.addresses[f"{host}:{port}"] = f"127.0.0.1:{free_port()}"
        arguments = [self._mounted("redis", word) for word in composefile.split_command(self.declared["redis"]["command"])]
        self.redis = LocalRedis(folder / "redis-server", security=security, arguments=arguments)

    @property
    def secrets(self) -> Path:
        """Return the folder that stands for the volume of secrets."""
        return self._volume("secrets")

    def url(self, service: str, path: str = "/metrics") -> str:
        """Return the address of a page of a service."""
        return f"http://{self.addresses[f'{service}:{_HTTP_PORT}']}{path}"

    def log(self, name: str) -> str:
        """Return what a service has written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def tails(self) -> str:
        """Return the ends of all logs, for people."""
        return "\n".join(f"--- {name} ({self.processes[name].poll()}):\n{self.log(name)[-1_500:]}" for name in self.processes)

    def settings(self, name: str) -> Settings:
        """Return the settings of a service, as it reads them."""
        with patch.dict("os.environ", self._environment(name), clear=True):
            return load()

    # --- Start and stop ---------------------------------------------------------------------------------------------------------

    async def start(self, *names: str) -> None:
        """Start these services and what they wait for, or all that is left; return once each is healthy, or has ended if a job.

        The replay goes on for long: it is not waited for. Raises AssertionError with the ends of the logs
        when one ends that should not, or is not healthy in time.
        """
        wanted: set[str] = set()
        asked = list(names or self.declared)
        while asked:
            name = asked.pop()
            wanted.add(name)
            asked += composefile.dependencies(self.declared[name], self.declared)
        async with asyncio.TaskGroup() as tasks:
            for name in wanted - set(self.started):
                tasks.create_task(self._bring_up(name), name=name)

    async def _bring_up(self, name: str) -> None:
        service = self.declared[name]
        for other in composefile.dependencies(service, self.declared):
            await self._reached[other].wait()
        self.started.append(name)
        if name == "redis":
            await asyncio.to_thread(self.redis.start)
        elif service["image"].startswith(_OURS):
            self._run(name)
            if service.get("healthcheck", {"test": ["NONE"]})["test"] != ["NONE"]:
                await until(lambda: self._healthy(name), f"{name} to be healthy", patience_s=PATIENCE_S, told=self.tails)
            elif self._is_waited_for(name):
                await until(lambda: self._ended_well(name), f"{name} to end", patience_s=PATIENCE_S, told=self.tails)
        self._reached[name].set()

    def _is_waited_for(self, job: str) -> bool:
        return any(job in composefile.dependencies(one, self.declared) for one in self.declared.values())

    def _run(self, name: str) -> None:
        service = self.declared[name]
        work = self.folder / name
        work.mkdir(exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [self._there(name, word) for word in composefile.split_command(service["command"])],
                env=self._environment(name),
                cwd=work,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def _healthy(self, name: str) -> bool:
        """Run the health check that the file declares."""
        assert self.processes[name].poll() is None, f"{name} ended with {self.processes[name].poll()}\n{self.tails()}"
        kind, *test = self.declared[name]["healthcheck"]["test"]
        command = ["sh", "-c", *test] if kind == "CMD-SHELL" else test
        check = await asyncio.create_subprocess_exec(
            *(self._there(name, word) for word in command),
            env=self._environment(name),
            cwd=self.folder / name,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await check.wait() == 0

    def _ended_well(self, name: str) -> bool:
        code = self.processes[name].poll()
        assert code in {None, 0}, f"{name} ended with {code}\n{self.tails()}"
        return code == 0

    def once(self, name: str, *command: str, **changed: str | None) -> subprocess.CompletedProcess[str]:
        """Run a command (the declared one when none is given) to its end as the service `name`, with variables changed or (None) gone."""
        environment = {key: value for key, value in (self._environment(name) | changed).items() if value is not None}
        words = [self._there(name, word) for word in command or composefile.split_command(self.declared[name]["command"])]
        return subprocess.run(words, env=environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=PATIENCE_S)

    async def restart(self, name: str, command: Sequence[str]) -> None:
        """Stop a service and start it in its place with another command; return once it is healthy."""
        self.processes[name].terminate()
        await asyncio.to_thread(self.processes[name].wait)
        self.declared[name] = {**self.declared[name], "command": command}
        self._run(name)
        await until(lambda: self._healthy(name), f"{name} to be healthy again", patience_s=PATIENCE_S, told=self.tails)

    async def stop(self) -> dict[str, int]:
        """Stop what runs as Compose does, the last in the order of start first; return the exit code of each that ran."""
        codes = {}
        for name in reversed(composefile.in_order(self.declared)):
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                grace_s = float(str(self.declared[name]["stop_grace_period"]).removesuffix("s"))
                codes[name] = await asyncio.to_thread(process.wait, grace_s)
        return codes

    def close(self) -> None:
        """End everything that still runs."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.redis.stop()

    # --- From containers to this machine ------------------------------------------------------------------------------------------

    def rewritten(self, text: str) -> str:
        """Return `text` with every host and port of the file's networks as an address of loopback."""
        for there, here in self.addresses.items():
            text = text.replace(there, here)
        return text.replace("kafka://kafka:9092", self.kafka.url).replace("redis://redis:6379/0", self.redis.url)

    def _mounted(self, name: str, text: str) -> str:
        mounts = self._mounts(name)
        # In one pass, the longer path first: what stands for one may itself lie below /tmp.
        targets = "|".join(re.escape(target) for target in sorted(mounts, key=len, reverse=True))
        return re.sub(rf"(?<![\w/-])({targets})(?![\w-])", lambda found: str(mounts[found[0]]), text) if mounts else text

    def _there(self, name: str, text: str) -> str:
        text = self.rewritten(self._mounted(name, text)).replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - replaced, not bound
        for address, here in self.addresses.items():
            host, _, port = address.partition(":")
            if host == ("engine" if name == "simulator" else name):
                text = text.replace(f"127.0.0.1:{port}", here)
                text = here.partition(":")[2] if text == port else text
        return text

    def _environment(self, name: str) -> dict[str, str]:
        declared = self.declared[name].get("environment", {})
        variables = {key: self._there(name, value) for key, value in declared.items()}
        own = self.addresses.get(f"{name}:{_HTTP_PORT}")
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
            **({"AQUILINE_HTTP__PORT": own.partition(":")[2]} if own else {}),
            **self._variables,
        }

    def _mounts(self, name: str) -> dict[str, Path]:
        service = self.declared[name]
        mounts = {target: self.folder / name / target.strip("/") for target in _strings(service.get("tmpfs", []))}
        for mount in _strings(service.get("volumes", [])):
            source, target = mount.split(":")[:2]
            mounts[target] = self._volume(source)
        for folder in mounts.values():
            folder.mkdir(parents=True, exist_ok=True)
        return mounts

    def _volume(self, name: str) -> Path:
        folder = self.folder / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder


def kafka_properties() -> dict[str, str]:
    """Return the broker's properties as the file declares them, without those of its addresses, its place and its role."""
    placed = re.compile(r"KAFKA_(HEAP_OPTS|NODE_ID|PROCESS_ROLES|LOG_DIRS|.*LISTENER.*|CONTROLLER_.*)$")
    declared = composefile.load().services["kafka"]["environment"]
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in declared.items()
        if name.startswith("KAFKA_") and not placed.match(name)
    }


def _strings(values: Sequence[object]) -> list[str]:
    return [value for value in values if isinstance(value, str)]
