"""`aquiline doctor` on a real Kafka, a real Redis and the simulator: a healthy stack is well, and each thing that is wrong is named."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from typer.testing import CliRunner

from deploy.local import LocalKafka, LocalRedis, LocalSecurity
from schemas import Control, HaltState, Instrument, RunMode, Topic, topic_name
from services.cli.doctor import app
from services.core.bus import Committed, TopicPartition
from services.core.bus.connect import connect
from services.core.bus.port import Bus
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from services.core.tokenizer import Tokenizer
from services.core.topic_admin import ensure_topics
from services.inference.simulator.server import Simulator
from services.inference.simulator.timing import Calibration

pytestmark = pytest.mark.integration

DATA = Path("services/inference/data")
MODE = RunMode.REPLAY


@dataclass(frozen=True)
class Stack:
    """Addresses of what a worker stands on, as variables."""

    kafka: LocalKafka
    redis: LocalRedis
    engine: str

    def variables(self) -> dict[str, str]:
        """Return the settings as variables."""
        return {
            "AQUILINE_RUN_MODE": MODE.value,
            "AQUILINE_BUS__URL": self.kafka.url,
            "AQUILINE_REDIS__URL": self.redis.url,
            "AQUILINE_ENGINE__URLS": json.dumps([self.engine]),
        }


@pytest.fixture(scope="module")
def simulator() -> Iterator[str]:
    """Serve a simulator from a loop of its own, since the command runs one itself."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    urls: list[str] = []
    stop = asyncio.Event()

    async def serve() -> None:
        made = Simulator(
            Calibration.from_file(DATA / "calibration-h100.json"), Tokenizer.from_file(DATA / "tokenizer.json"), time_scale=0.0
        )
        async with made.serving() as url:
            urls.append(url)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    yield urls[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, simulator: str) -> Iterator[Stack]:
    """Return a healthy stack of this module's own, with one instrument: the topics' names are fixed."""
    with LocalKafka(tmp_path_factory.mktemp("kafka-doctor")) as kafka, LocalRedis(tmp_path_factory.mktemp("redis-doctor")) as cache:
        made = Stack(kafka, cache, simulator)
        asyncio.run(_create(made))
        with redis.Redis.from_url(cache.url) as client:
            client.config_set("maxmemory", "256mb")
            client.config_set("maxmemory-policy", "allkeys-lru")
        yield made


async def _create(stack: Stack) -> None:
    bus = connect(BusSettings(url=stack.kafka.url), SystemClock())
    admin = await bus.admin()
    await ensure_topics(admin, MODE, 2)
    await admin.close()
    await say(bus, Topic.INSTRUMENTS, "AAPL.XNAS", instrument().encode())


def instrument(tick: str = "0.01", calendar: str = "XNYS") -> Instrument:
    return Instrument(
        schema_version=1,
        run_mode=MODE,
        symbol="AAPL.XNAS",
        currency="USD",
        price_increment=tick,
        calendar=calendar,
        price_adjustment="none",
    )


async def say(bus: Bus, topic: Topic, key: str, value: bytes | None) -> None:
    producer = await bus.producer(client_id="doctor-test")
    await (await producer.send(topic_name(topic, MODE), key=key.encode(), value=value))
    await producer.close()


async def alter(stack: Stack, topic: str, config: Mapping[str, str]) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=stack.kafka.bootstrap)
    await client.start()
    await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=dict(config))])
    await client.close()


class Doctor:
    """Runs the command."""

    def __init__(self, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stack = stack
        self._monkeypatch = monkeypatch
        for name, value in stack.variables().items():
            monkeypatch.setenv(name, value)

    def set(self, **variables: str) -> None:
        """Change settings."""
        for name, value in variables.items():
            self._monkeypatch.setenv(f"AQUILINE_{name}", value)

    def look(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Return the exit status, and by check the first finding that is not well."""
        done = CliRunner().invoke(app, ["--json", *arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.output
        said = json.loads(done.stdout)
        assert said["ok"] is (done.exit_code == 0)
        found: dict[str, Any] = {}
        for one in said["findings"]:
            if one["level"] not in {"ok", "skipped"}:
                found.setdefault(one["check"], one)
        return done.exit_code, found


@pytest.fixture
def doctor(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Return a doctor with the settings of the healthy stack."""
    return Doctor(stack, monkeypatch)


def test_a_healthy_stack_is_well(doctor: Doctor) -> None:
    assert doctor.look("--probe") == (0, {})


def test_people_read_a_line_a_check(doctor: Doctor) -> None:
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 0
    assert "0 errors, 0 warnings in " in done.output
    assert f"OK    topic {topic_name(Topic.CONTROL, MODE)}" in done.output
    assert "--    clock" in done.output
    del doctor


@pytest.mark.parametrize(
    ("topic", "config", "said"),
    [
        (Topic.CONTROL, {"cleanup.policy": "delete"}, "a halt ends by itself"),
        (Topic.MARKET_FEATURES, {"retention.ms": "86400000"}, "rebuilding a book needs"),
        (Topic.VISION_FEATURES, {"message.timestamp.type": "CreateTime"}, "producers' clocks"),
        (Topic.DEAD_LETTERS, {"max.message.bytes": "1000"}, "a dead letter holds"),
        (Topic.SIGNAL_AUDIT, {"min.insync.replicas": "2"}, "nothing can be appended"),
    ],
)
def test_a_topic_that_is_not_as_it_should_be_is_named(doctor: Doctor, topic: Topic, config: dict[str, str], said: str) -> None:
    name = topic_name(topic, MODE)
    bus = connect(BusSettings(url=doctor.stack.kafka.url), SystemClock())

    async def before() -> dict[str, str]:
        admin = await bus.admin()
        try:
            return {key: (await admin.describe([name]))[name].config[key] for key in CONFIGURED}
        finally:
            await admin.close()

    original = asyncio.run(before())
    asyncio.run(alter(doctor.stack, name, {**original, **config}))
    try:
        status, found = doctor.look()
    finally:
        asyncio.run(alter(doctor.stack, name, original))
    assert status == 1
    assert said in found[f"topic {name}"]["sentence"]
    assert doctor.look() == (0, {})


def test_a_symbol_on_two_partitions_is_named(doctor: Doctor) -> None:
    name = topic_name(Topic.MARKET_FEATURES, MODE)
    bus = connect(BusSettings(url=doctor.stack.kafka.url), SystemClock())

    async def send() -> None:
        producer = await bus.producer(client_id="test")
        for partition in range(2):
            await (await producer.send(name, key=b"AAPL.XNAS", value=b"{}", partition=partition))
        await producer.close()

    async def empty() -> None:
        admin = await bus.admin()
        await admin.truncate([name])
        await admin.close()

    asyncio.run(send())
    try:
        status, found = doctor.look()
    finally:
        asyncio.run(empty())
    assert status == 1
    assert "AAPL.XNAS on [0, 1]" in found["partitioners"]["sentence"]


CONFIGURED = ("cleanup.policy", "retention.ms", "max.message.bytes", "message.timestamp.type", "min.insync.replicas")


def test_topics_of_another_run_mode_are_missed(doctor: Doctor) -> None:
    doctor.set(RUN_MODE="demo")
    status, found = doctor.look()
    assert status == 1
    names = {topic: f"topic {topic_name(topic, RunMode.DEMO)}" for topic in Topic}
    assert {topic for topic, name in names.items() if name in found} == set(Topic) - {Topic.NOTES, Topic.POSITIONS}


def test_an_operators_halt_is_told(doctor: Doctor) -> None:
    bus = connect(BusSettings(url=doctor.stack.kafka.url), SystemClock())
    halt = Control(schema_version=1, run_mode=MODE, scope="global", state=HaltState.HALTED, reason="fire drill", actor="me", ts_ms=1)
    asyncio.run(say(bus, Topic.CONTROL, "global", halt.encode()))
    try:
        status, found = doctor.look()
    finally:
        asyncio.run(say(bus, Topic.CONTROL, "global", None))
    assert (status, "fire drill" in found["control"]["sentence"]) == (0, True)


def test_an_instrument_that_cannot_be_used_is_named(doctor: Doctor) -> None:
    bus = connect(BusSettings(url=doctor.stack.kafka.url), SystemClock())
    asyncio.run(say(bus, Topic.INSTRUMENTS, "AAPL.XNAS", instrument(calendar="XMARS").encode()))
    try:
        status, found = doctor.look()
    finally:
        asyncio.run(say(bus, Topic.INSTRUMENTS, "AAPL.XNAS", instrument().encode()))
    assert (status, "XMARS" in found["instruments"]["sentence"]) == (1, True)


def test_a_group_whose_records_are_gone_is_told(doctor: Doctor) -> None:
    tp = TopicPartition(topic_name(Topic.MARKET_FEATURES, MODE), 0)

    async def commit() -> None:
        bus = connect(BusSettings(url=doctor.stack.kafka.url), SystemClock())
        consumer = await bus.consumer(group="replay.aquiline-fusion", client_id="doctor-test")
        await consumer.start([tp.topic], Idle())
        while tp not in consumer.assignment():
            await consumer.poll(timeout_ms=100)
        await consumer.commit({tp: Committed(41, "")})
        await consumer.close()

    asyncio.run(commit())
    status, found = doctor.look()
    assert (status, "beyond the end of the log" in found["group replay.aquiline-fusion"]["sentence"]) == (1, True)
    doctor.set(FUSION__GROUP="another-group")
    assert doctor.look() == (0, {})


class Idle:
    """A listener that has nothing to do."""

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        pass

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        pass


@pytest.mark.parametrize(
    ("setting", "value", "said"), [("maxmemory", "0", "maxmemory is not set"), ("maxmemory-policy", "noeviction", "noeviction")]
)
def test_a_redis_that_would_fill_up_is_named(doctor: Doctor, setting: str, value: str, said: str) -> None:
    doctor.set(FUSION__GROUP="another-group")
    with redis.Redis.from_url(doctor.stack.redis.url) as client:
        original = client.config_get(setting)[setting]
        client.config_set(setting, value)
        try:
            status, found = doctor.look()
        finally:
            client.config_set(setting, original)
    assert (status, said in found["redis"]["sentence"], set(found)) == (1, True, {"redis"})


def test_an_engine_that_is_too_small_for_the_prompts_is_named(doctor: Doctor) -> None:
    doctor.set(FUSION__GROUP="another-group", FUSION__WINDOW_BARS="10000")
    status, found = doctor.look()
    (engine,) = [one for check, one in found.items() if check.startswith("engine")]
    assert (status, engine["level"], "the longest prompt has" in engine["sentence"]) == (1, "fail", True), found
    assert "fusion.window_bars (10000)" in engine["fix"]


def test_nothing_that_answers_is_named_each(doctor: Doctor) -> None:
    nobody = "127.0.0.1:1"
    doctor.set(BUS__URL=f"kafka://{nobody}", REDIS__URL=f"redis://{nobody}/0", ENGINE__URLS=json.dumps([f"http://{nobody}"]))
    status, found = doctor.look()
    assert (status, set(found)) == (1, {"kafka", "redis", f"engine sglang@{nobody}"})
    assert "refuses connections" in found["kafka"]["sentence"]


def test_settings_that_cannot_be_used_are_a_finding(doctor: Doctor, tmp_path: Path) -> None:
    file = tmp_path / "aquiline.toml"
    file.write_text("[fusion]\nwindow_bars = 3\n")
    status, found = doctor.look("--config", str(file))
    assert (status, "fusion.window_bars (3)" in found["settings"]["sentence"]) == (1, True)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """Return a Kafka that wants TLS, a client's certificate and a log-in."""
    security = LocalSecurity(tmp_path_factory.mktemp("security"))
    with LocalKafka(tmp_path_factory.mktemp("kafka-doctor-tls"), security=security) as kafka:
        yield kafka


def test_each_step_of_a_secured_connection_is_told_plainly(doctor: Doctor, secured: LocalKafka, tmp_path: Path) -> None:
    security = secured.security
    assert security is not None
    other = LocalSecurity(tmp_path / "other")
    other.create()
    doctor.set(BUS__URL=secured.url, BUS__REQUEST_TIMEOUT_MS="3000")
    kafka = doctor.look()[1]["kafka"]
    assert "speaks TLS" in kafka["sentence"], kafka

    doctor.set(BUS__SECURITY="sasl_ssl", BUS__USERNAME=security.username, BUS__PASSWORD="wrong")
    kafka = doctor.look()[1]["kafka"]
    assert "certificate" in kafka["sentence"], kafka
    assert "bus.ca_file" in kafka["fix"]

    doctor.set(BUS__CA_FILE=str(other.ca_file))
    assert "certificate" in doctor.look()[1]["kafka"]["sentence"]

    doctor.set(BUS__CA_FILE=str(security.ca_file), BUS__CERT_FILE=str(security.cert_file), BUS__KEY_FILE=str(security.key_file))
    kafka = doctor.look()[1]["kafka"]
    assert f"refuses the log-in of '{security.username}'" in kafka["sentence"], kafka
    assert "wrong" not in kafka["sentence"]

    doctor.set(BUS__PASSWORD=security.password)
    assert "kafka" not in doctor.look()[1]
