"""The profile `default` as people start it: each test leaves it running for the next."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.check import composefile
from schemas import Outcome, Topic
from services.feeds.samples import SYMBOLS
from tests.containers.conftest import Docker
from tests.containers.project import Project, say, until
from tests.containers.topics import Topics

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

_TOPICS = Topics()
_LISTED = set(SYMBOLS.values()) - {"FB.XNAS"}
"""Facebook is listed six years into the feed."""
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
_PROBE = "for folder in / /opt /etc /var/lib /var/log /usr/bin; do (echo x > $folder/probe) 2>/dev/null && echo $folder; done; true"
_KILL = """
import os, pathlib, signal
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    if folder.name not in {"1", str(os.getpid())} and b"services.fusion" in (folder / "cmdline").read_bytes():
        os.kill(int(folder.name), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def told(request: pytest.FixtureRequest) -> Iterator[None]:
    """Say which test runs and how long it took."""
    began = time.monotonic()
    yield
    say(f"{time.monotonic() - began:4.0f} s  {request.node.name.removeprefix('test_').replace('_', ' ')}")


def new_signals(project: Project, count: int = 8) -> None:
    """Return once `count` more outcomes and signals are on the topics than at the call."""
    signals, audits = _TOPICS.count(Topic.STRATEGY_SIGNALS), _TOPICS.count(Topic.SIGNAL_AUDIT)
    until(
        lambda: _TOPICS.count(Topic.STRATEGY_SIGNALS) >= signals + count and _TOPICS.count(Topic.SIGNAL_AUDIT) >= audits + count,
        f"{count} new signals with their outcomes",
        told=project.states,
    )


def events_of(file: Path) -> dict[tuple[str, str], int]:
    """Return when each service first started, became healthy or ended well, in nanoseconds, by service and condition."""
    first: dict[tuple[str, str], int] = {}
    for line in file.read_text().splitlines():
        event = json.loads(line)
        attributes = event["Actor"]["Attributes"]
        what = {
            "start": "start",
            "health_status: healthy": "service_healthy",
            "die": "service_completed_successfully" if attributes.get("exitCode") == "0" else "failed",
        }.get(event["status"])
        if what is not None:
            first.setdefault((attributes["com.docker.compose.service"], what), event["timeNano"])
    return first


def test_every_container_starts_after_what_it_waits_for_is_healthy_or_done(stack: Project, events: Path) -> None:
    first = events_of(events)
    services = composefile.load().of_profiles("default")
    assert {service for service, what in first if what == "start"} == set(services) == set(stack.containers())
    checked = 0
    for name, service in services.items():
        for other, condition in composefile.dependencies(service, services).items():
            assert first[other, condition] < first[name, "start"], f"{name} starts before {other} is {condition}"
            checked += 1
    assert checked > 15


def test_signals_and_outcomes_of_every_stock_reach_a_client_outside(stack: Project) -> None:
    until(lambda: {one.symbol for one in _TOPICS.signals()} >= _LISTED, "a signal of every stock", told=stack.states)
    until(lambda: _TOPICS.count(Topic.SIGNAL_OUTCOMES) > len(_LISTED), "signals judged by what came after them", told=stack.states)
    signals = _TOPICS.signals()
    assert {signal.run_mode.value for signal in signals} == {"demo"}
    assert {signal.source for signal in signals} == {"simulator"}
    until(lambda: any(signal.vision == "fresh" for signal in _TOPICS.signals()), "a signal on fresh vision features")
    assert _TOPICS.broken_promises() == []


def test_a_halt_stops_signals_and_a_resume_brings_them_back(stack: Project) -> None:
    new_signals(stack)
    stack.execute("fusion", "aquiline", "halt", "--reason", "a test", "--actor", "test")
    until(
        lambda: len([one for one in _TOPICS.audits() if one.reason == "halted"]) >= 8,
        "triggers that end blocked because of the halt",
        told=stack.states,
    )
    audits = _TOPICS.audits()
    blocked = [one.ts_done_ms for one in audits if one.reason == "halted"]
    published = [one.ts_done_ms for one in audits if one.outcome is Outcome.PUBLISHED]
    assert not [ts for ts in published if min(blocked) + 1_000 < ts < max(blocked)], "nothing is published a second after the halt"
    stack.execute("fusion", "aquiline", "resume", "--reason", "the test is over", "--actor", "test", "--yes")
    new_signals(stack)


def test_the_doctor_finds_no_error(stack: Project) -> None:
    done = stack.execute("fusion", "aquiline", "doctor")
    assert done.stdout.splitlines()[-1].startswith("0 errors"), done.stdout


def test_every_container_is_hardened_as_declared(stack: Project) -> None:
    services = composefile.load().of_profiles("default")
    running = 0
    for name, container in stack.containers().items():
        host, declared = container["HostConfig"], services[name]
        assert host["ReadonlyRootfs"] is True, name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert host["Privileged"] is False, name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert host["Init"] is True, name
        assert host["PidsLimit"] == declared["pids_limit"], name
        assert host["Memory"] > 0, name
        assert container["Config"]["User"] == declared["user"], name
        assert not [mount for mount in container["Mounts"] if _ANONYMOUS.fullmatch(mount.get("Name", ""))], (
            f"{name} has an anonymous volume"
        )
        published = [port["HostIp"] for ports in container["NetworkSettings"]["Ports"].values() for port in ports or []]
        assert set(published) <= {"127.0.0.1"}, name
        if container["State"]["Status"] == "running":
            _holds_inside(stack, name, declared)
            running += 1
    assert running == len(services) - 3, "all but the three jobs"


def _holds_inside(stack: Project, name: str, declared: Any) -> None:
    """Ask the kernel, from inside the container."""
    status = dict(line.split(":", 1) for line in stack.execute(name, "cat", "/proc/1/status").stdout.splitlines())
    uid, gid = declared["user"].split(":")
    assert set(status["Uid"].split()) == {uid}, name
    assert set(status["Gid"].split()) == {gid}, name
    assert {int(status[kind], 16) for kind in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}, name
    assert status["NoNewPrivs"].strip() == "1", name
    assert stack.execute(name, "sh", "-c", _PROBE).stdout == "", f"{name} can write outside of its mounts"
    assert stack.execute(name, "sh", "-c", "echo x > /tmp/probe && rm /tmp/probe && echo ok").stdout.strip() == "ok", name


def test_a_killed_worker_comes_back_and_loses_no_trigger(stack: Project) -> None:
    restarts = stack.containers()["fusion"]["RestartCount"]
    stack.execute("fusion", "python", "-c", _KILL, check=False)
    until(
        lambda: (
            stack.containers()["fusion"]["RestartCount"] > restarts
            and stack.containers()["fusion"]["State"]["Health"]["Status"] == "healthy"
        ),
        "the worker to come back",
        told=stack.states,
    )
    new_signals(stack)
    assert _TOPICS.broken_promises() == []


def test_a_restart_of_the_engine_costs_only_the_triggers_of_its_absence(stack: Project) -> None:
    stack.compose("restart", "simulator")
    new_signals(stack)
    assert _TOPICS.broken_promises() == []


def test_a_stop_drains_and_a_start_goes_on_with_the_same_data(stack: Project) -> None:
    before = _kept(stack)
    stack.compose("stop")
    codes = {name: container["State"]["ExitCode"] for name, container in stack.containers().items()}
    # A JVM that was told to end says so by its exit code.
    assert codes == dict.fromkeys(codes, 0) | {"kafka": 143}, stack.states()
    assert not any(container["State"]["OOMKilled"] for container in stack.containers().values())
    stack.up()
    _goes_on(stack, before)


def test_after_down_and_up_the_data_are_still_there(stack: Project) -> None:
    before = _kept(stack)
    stack.down()
    assert stack.containers() == {}
    stack.up()
    _goes_on(stack, before)


def test_after_a_restart_of_the_daemon_everything_comes_back_by_itself(stack: Project, docker: Docker) -> None:
    if docker.private is None:
        pytest.skip("the machine's own Docker Engine is not restarted; stop it, and the tests start one of their own")
    before = _kept(stack)
    running = {name for name, container in stack.containers().items() if container["State"]["Status"] == "running"}
    docker.private.restart()
    until(
        lambda: (
            {
                name
                for name, container in stack.containers().items()
                if container["State"]["Status"] == "running"
                and container["State"].get("Health", {"Status": "healthy"})["Status"] == "healthy"
            }
            >= running
        ),
        "all that ran to run again",
        told=stack.states,
    )
    _goes_on(stack, before)


def _kept(stack: Project) -> tuple[str, dict[int, int], list[tuple[int, int, bytes]]]:
    """Return what must outlive containers: a secret, how far the feed is, and the first signals."""
    until(lambda: _TOPICS.count(Topic.STRATEGY_SIGNALS) >= 20, "twenty signals", told=stack.states)
    secret = stack.execute("console", "cat", "/run/aquiline/secrets/aquiline_console__token").stdout
    return secret, _TOPICS.ends(Topic.CANDLES), _TOPICS.read(Topic.STRATEGY_SIGNALS)[:20]


def _goes_on(stack: Project, before: tuple[str, dict[int, int], list[tuple[int, int, bytes]]]) -> None:
    secret, candles, signals = before
    new_signals(stack)
    until(lambda: sum(_TOPICS.ends(Topic.CANDLES).values()) > sum(candles.values()), "the feed to go on", told=stack.states)
    held = set(_TOPICS.read(Topic.STRATEGY_SIGNALS))
    assert set(signals) <= held
    assert len(signals) == 20
    assert _kept(stack)[0] == secret
    assert _TOPICS.broken_promises() == []
