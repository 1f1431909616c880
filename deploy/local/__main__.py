"""`python -m deploy.local up | status | down | fetch`: a real Kafka, a real Redis and the simulator in the background."""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Final

from deploy.local.jars import kafka_jars
from deploy.local.kafka import LocalKafka
from deploy.local.process import LocalError, LocalServer
from deploy.local.redis import LocalRedis, redis_server
from deploy.local.simulator import LocalSimulator
from schemas import RunMode
from services.core.bus import BusError
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from services.core.topic_admin import ensure_topics

STATE: Final = Path(__file__).parents[2] / ".local"
_PORTS: Final = {"kafka": 9092, "redis": 6379, "simulator": 30_000}
_VARIABLES: Final = {"kafka": "AQUILINE_BUS__URL", "redis": "AQUILINE_REDIS__URL", "simulator": "AQUILINE_ENGINE__URLS"}


def main(argv: list[str] | None = None) -> int:
    """Run the command and return the exit status."""
    options = _parser().parse_args(argv)
    try:
        if options.command == "up":
            _up(options)
        elif options.command == "down":
            _down()
        elif options.command == "status":
            return _status()
        else:
            kafka_jars()
            redis_server()
    except (LocalError, BusError) as error:
        sys.stderr.write(f"deploy.local: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the servers that are not running, create the topics, print addresses")
    for name, port in _PORTS.items():
        up.add_argument(f"--{name}-port", type=int, help=f"port on loopback (default: {port}, or a free one when it is in use)")
    up.add_argument("--simulator", action=argparse.BooleanOptionalAction, default=True, help="also start the simulator")
    up.add_argument("--partitions", type=int, default=4, help="partitions of each partitioned topic (default: 4)")
    commands.add_parser("status", help="list the servers; the exit status is 0 when all are running")
    commands.add_parser("down", help="stop the servers; Kafka's data stay in .local/kafka")
    commands.add_parser("fetch", help="fetch Kafka and install Redis, and start nothing")
    return parser


def _up(options: argparse.Namespace) -> None:
    names = [name for name in _PORTS if name != "simulator" or options.simulator]
    servers = [_server(name, getattr(options, f"{name}_port")) for name in names]
    for server in servers:
        running = server.pid is not None
        usual = getattr(options, f"{server.name}_port") or _PORTS[server.name]
        why = "" if running or server.port == usual else f" ({usual} is in use)"
        _say(f"{server.name}: {'already running' if running else 'starting'} on port {server.port}{why}")
        server.start()
        (server.folder / "port.json").write_text(json.dumps(server.port))
    created = asyncio.run(_create_topics(servers[0].url, options.partitions))
    _say(f"topics of run modes {', '.join(mode.value for mode in RunMode)}: {created} created")
    for server in servers:
        value = json.dumps([server.url]) if server.name == "simulator" else server.url
        sys.stdout.write(f"export {_VARIABLES[server.name]}='{value}'\n")
    _say("logs are in .local/*/*.log; `make down-local` stops the servers")
    if options.simulator:
        demo_options = " ".join(f"--{name} {server.url}" for name, server in zip(("bus", "redis", "engine"), servers, strict=True))
        _say(f"run the demo on these servers: make demo ARGS='{demo_options}'")


def _down() -> None:
    for name in reversed(_PORTS):
        server = _server(name, None)
        if server.pid is not None:
            server.stop()
            _say(f"{name}: stopped" + ("; its topics stay in .local/kafka, which `make clean` deletes" if name == "kafka" else ""))


def _status() -> int:
    stopped = 0
    for name in _PORTS:
        server = _server(name, None)
        pid = server.pid
        stopped += pid is None
        sys.stdout.write(f"{name}: not running\n" if pid is None else f"{name}: {server.url} (pid {pid}, {server.log_file})\n")
    return min(stopped, 1)


def _server(name: str, port: int | None) -> LocalServer:
    """Return the running server, or one to start on `port`, on its usual port, or on a free one."""
    kinds: dict[str, type[LocalKafka | LocalRedis | LocalSimulator]] = {
        "kafka": LocalKafka,
        "redis": LocalRedis,
        "simulator": LocalSimulator,
    }
    kind, folder = kinds[name], STATE / name
    remembered = folder / "port.json"
    if remembered.is_file():
        known = kind(folder, port=json.loads(remembered.read_text()), detached=True)
        if known.pid is not None:
            if port not in {None, known.port}:
                raise LocalError(f"{name} already runs on port {known.port}, not {port}; stop it first (`down`)")
            return known
    return kind(folder, port=port or (_PORTS[name] if _is_free(_PORTS[name]) else None), detached=True)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def _create_topics(url: str, partitions: int) -> int:
    bus = connect(BusSettings(url=url), SystemClock())
    admin = await bus.admin()
    try:
        return sum([len(await ensure_topics(admin, mode, partitions)) for mode in RunMode])
    finally:
        await admin.close()
        await bus.close()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
