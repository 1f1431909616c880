"""The local servers start, survive being killed, and can be ended by another process."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import redis

from deploy.local import LocalError, LocalRedis, LocalSecurity
from deploy.local import __main__ as commands
from deploy.local import jars as kafka_jars
from deploy.local.process import free_port, running_pid

pytestmark = pytest.mark.integration


def test_redis_is_killed_and_started_on_its_port_empty(tmp_path: Path) -> None:
    with LocalRedis(tmp_path / "redis") as server:
        client = redis.Redis.from_url(server.url)
        client.set("key", "value")
        client.close()
        server.kill()
        assert server.pid is None
        server.start()
        client = redis.Redis.from_url(server.url)
        assert client.get("key") is None
        client.close()


def test_redis_with_security_wants_tls_and_the_password(tmp_path: Path) -> None:
    security = LocalSecurity(tmp_path / "security")
    with LocalRedis(tmp_path / "redis", security=security) as server:
        trust = {"ssl_ca_certs": str(security.ca_file)}
        client = redis.Redis.from_url(server.url, username=security.username, password=security.password, **trust)
        assert client.ping()
        client.close()
        for password, arguments in (("wrong", trust), (security.password, {})):
            client = redis.Redis.from_url(server.url, username=security.username, password=password, **arguments)
            with pytest.raises((redis.exceptions.AuthenticationError, redis.exceptions.ConnectionError, ssl.SSLError)):
                client.ping()
            client.close()


def test_a_server_in_the_background_is_found_and_ended_by_another_object(tmp_path: Path) -> None:
    started = LocalRedis(tmp_path / "redis", detached=True).start()
    found = LocalRedis(tmp_path / "redis", port=started.port, detached=True)
    assert found.pid == started.pid
    found.stop()
    assert running_pid(tmp_path / "redis", "redis") is None
    found.stop()


def test_a_server_dies_with_the_process_that_started_it_however_that_ends(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, signal, deploy.local\n"
        f"print(deploy.local.LocalRedis(pathlib.Path({str(tmp_path / 'redis')!r})).start().pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    owner = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert int(owner.stdout) > 1
    until = time.monotonic() + 30
    while running_pid(tmp_path / "redis", "redis") is not None:
        assert time.monotonic() < until, "the guard kills it"


def test_a_server_started_in_a_thread_outlives_the_thread(tmp_path: Path) -> None:
    server = LocalRedis(tmp_path / "redis")
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with server:
        client = redis.Redis.from_url(server.url)
        assert client.ping()
        client.close()


def test_a_pid_of_somebody_else_is_never_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "redis.pid").write_text("1")
    assert running_pid(tmp_path, "redis") is None


def test_a_server_that_ends_while_starting_is_told_with_its_log(tmp_path: Path) -> None:
    with LocalRedis(tmp_path / "first") as first, pytest.raises(LocalError, match=r"(?s)ended while starting.*in use"):
        LocalRedis(tmp_path / "second", port=first.port).start()


def test_up_prints_what_to_export_and_down_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "STATE", tmp_path)
    ports = [f"--{name}-port={free_port()}" for name in ("kafka", "redis", "simulator")]
    assert commands.main(["up", *ports]) == 0
    try:
        first = capsys.readouterr().out
        assert [line.split("=")[0] for line in first.splitlines()] == [
            "export AQUILINE_BUS__URL",
            "export AQUILINE_REDIS__URL",
            "export AQUILINE_ENGINE__URLS",
        ]
        assert commands.main(["status"]) == 0
        assert commands.main(["up"]) == 0
        assert capsys.readouterr().out.endswith(first)
        assert commands.main(["up", "--redis-port", "1"]) == 1
        assert "runs on port" in capsys.readouterr().err
    finally:
        assert commands.main(["down"]) == 0
    assert commands.main(["status"]) == 1


def test_the_lock_names_coordinates_and_checksums_and_no_host() -> None:
    locked = kafka_jars.read_lock()
    assert {coordinates.split(":")[2] for coordinates in locked if coordinates.startswith("org.apache.kafka:kafka_")} == {"4.1.2"}
    assert "//" not in kafka_jars.LOCK_FILE.read_text()


def test_a_jar_with_another_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "kafka.lock"
    lock.write_text("org.slf4j:slf4j-api:1.7.36 " + "0" * 64 + "\n")
    monkeypatch.setattr(kafka_jars, "LOCK_FILE", lock)
    monkeypatch.setattr(kafka_jars, "read_lock", lambda: {"org.slf4j:slf4j-api:1.7.36": "0" * 64})
    monkeypatch.setattr(kafka_jars, "CACHE", tmp_path / "cache")
    with pytest.raises(LocalError, match=r"has SHA-256 .* expected 0000"):
        kafka_jars.kafka_jars()
    assert list((tmp_path / "cache").glob("*/*.jar")) == []


def test_a_line_of_the_lock_that_is_none_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "kafka.lock"
    lock.write_text("org.slf4j:slf4j-api\n")
    with pytest.raises(LocalError, match=r"kafka\.lock:1 is 'org\.slf4j:slf4j-api'"):
        kafka_jars.read_lock(lock)
