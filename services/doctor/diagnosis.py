"""Runs the checks in order: asks the tokenizer, Kafka, Redis, the engines and the GPU's driver, and passes the answers to the findings."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from redis.exceptions import AuthenticationError, RedisError

from schemas import MarketFeatures, Topic, topic_name
from services.core import redis
from services.core.bus import Bus, BusError, NewTopic, TopicPartition
from services.core.bus.connect import connect as connect_bus
from services.core.bus.kafka_cluster import ClusterState
from services.core.bus.schema_registry import SchemaRegistry
from services.core.bus.topic_reader import read_offsets
from services.core.calendar import CalendarError, SessionCalendar
from services.core.chat_template import TemplateError
from services.core.clock import SystemClock
from services.core.instruments import Instruments
from services.core.settings import Settings, SettingsError
from services.core.table_inputs import topic_specs
from services.core.tokenizer import Tokenizer
from services.doctor.engine_findings import PromptFacts, engine_findings
from services.doctor.feature_findings import feature_finding
from services.doctor.finding import Finding, fail, ok, skipped
from services.doctor.kafka_connection import check_connection
from services.doctor.longest_prompt import id_difference, longest_prompt
from services.doctor.redis_findings import RedisFacts, redis_findings
from services.doctor.table_findings import table_findings
from services.doctor.topic_findings import TopicFacts, look_back, partitioner_finding, topic_findings
from services.doctor.worker_findings import (
    halt_findings,
    instrument_findings,
    offset_findings,
    skew_finding,
    symbol_change_findings,
)
from services.fusion.decide.control import ControlTable
from services.fusion.deliver.acknowledgements import SkewMeter
from services.fusion.service import connect_engine, load_tokenizer
from services.inference.engine import EngineError
from services.inference.launcher.gpu_memory import gpu_memory_bytes

PROBE_TOPIC: Final = "aquiline-doctor-probe"
_GIB: Final = 1024**3
_PROBES: Final = 3
_REDIS_S: Final = 5.0
_NEWEST: Final = 500
"""Records of each partition of the inputs whose keys are looked at."""


class Diagnosis:
    """One run of every check."""

    def __init__(self, settings: Settings, *, probe: bool) -> None:
        """With `probe`, write a few records to a topic of the doctor's own, to read the broker's clock."""
        self._settings = settings
        self._probe = probe
        self._clock = SystemClock()
        self._calendars: set[str] = set()
        self._symbols: list[str] = []
        self._prompt: PromptFacts | None = None

    async def findings(self) -> AsyncIterator[Finding]:
        """Yield each finding as soon as it is made."""
        for step in (self._tokenizer, self._kafka, self._registry, self._redis, self._engines, self._gpu):
            for finding in await step():
                yield finding

    async def _tokenizer(self) -> list[Finding]:
        engine = self._settings.engine
        if engine.kind == "rules":
            return [skipped("tokenizer", "the rules engine uses no tokens")]
        try:
            tokenizer = await asyncio.to_thread(load_tokenizer, engine)
            self._prompt = await longest_prompt(self._settings, tokenizer)
        except SettingsError as error:
            return [fail("tokenizer", str(error), "set engine.tokenizer_file to the model's tokenizer.json")]
        except ValueError as error:
            return [fail("tokenizer", str(error), "set engine.chat_template to the model's, or engine.tokenizer_file to its file")]
        which = engine.tokenizer_file or "the simulator's"
        fits = ok("tokenizer", f"{which}, {tokenizer.vocab_size} tokens, fits the chat template {engine.chat_template!r}")
        if engine.tokenizer_file is None:
            return [fits]
        if engine.kind == "openai":
            return [fits, skipped("prompt ids", "the server is sent text, and applies its own chat template")]
        return [fits, await self._prompt_ids(tokenizer, engine.tokenizer_file)]

    async def _prompt_ids(self, tokenizer: Tokenizer, file: Path) -> Finding:
        try:
            difference = await id_difference(self._settings, tokenizer, file)
        except TemplateError as error:
            return skipped("prompt ids", f"not compared with the model's own: {error}")
        if difference is not None:
            fix = "set engine.chat_template to the model's, and engine.tokenizer_file to its own file"
            return fail("prompt ids", f"the model was trained on other ids: {difference}", fix)
        return ok("prompt ids", "a whole prompt has the ids that the model's own chat template and tokenizer give")

    # --- Kafka ------------------------------------------------------------------------------------------------------------

    async def _kafka(self) -> list[Finding]:
        if self._settings.bus.url == "memory://":
            return [skipped("kafka", "bus.url is memory://, which no other process can read")]
        reached, survey = await check_connection(self._settings.bus, self._settings.fusion_group)
        if survey is None:
            return [reached, skipped("topics", "not checked, as Kafka cannot be reached")]
        bus = connect_bus(self._settings.bus, self._clock, self._settings.topics)
        try:
            return [reached, *await self._on(bus, survey.renamed(self._settings.topics.of_broker))]
        except BusError as error:
            return [reached, fail("topics", str(error), "fix this first, then run the doctor again")]
        finally:
            await bus.close()

    async def _on(self, bus: Bus, survey: ClusterState) -> list[Finding]:
        settings = self._settings
        names = [topic_name(topic, settings.run_mode) for topic in topic_specs()]
        admin = await bus.admin()
        try:
            infos = await admin.describe(names)
        finally:
            await admin.close()
        tables: list[Finding] = []
        if topic_name(Topic.INSTRUMENTS, settings.run_mode) in infos and topic_name(Topic.INSTRUMENT_EVENTS, settings.run_mode) in infos:
            tables += await self._instruments(bus)
        if topic_name(Topic.CONTROL, settings.run_mode) in infos:
            tables += await self._control(bus)
        tables += await table_findings(bus, settings, infos)
        span_ms, _ = look_back(settings.fusion, self._calendars, self._clock.now_ms())
        found = topic_findings(settings, TopicFacts(infos, span_ms, survey.replicas, survey.in_sync))
        inputs = [
            TopicPartition(name, partition)
            for name in (topic_name(topic, settings.run_mode) for topic in (Topic.MARKET_FEATURES, Topic.VISION_FEATURES))
            if name in infos
            for partition in range(infos[name].partitions)
        ]
        newest = await self._newest_records(bus, inputs)
        return [*found, *newest, *tables, await self._group(bus, survey, inputs), await self._skew(bus, inputs)]

    async def _newest_records(self, bus: Bus, inputs: Sequence[TopicPartition]) -> list[Finding]:
        """Look on which partitions each symbol's newest records are, and which features the newest closed bars hold."""
        placed: dict[str, set[int]] = defaultdict(set)
        published: dict[str, set[str]] = defaultdict(set)
        bars = topic_name(Topic.MARKET_FEATURES, self._settings.run_mode)
        reader = await bus.reader(client_id="aquiline-doctor")
        try:
            begins, ends = await reader.beginning_offsets(inputs), await reader.end_offsets(inputs)
            newest = {tp: range(max(begins[tp], ends[tp] - _NEWEST), ends[tp]) for tp in inputs}
            async for record in read_offsets(reader, newest):
                if record.key:
                    placed[record.key.decode(errors="replace")].add(record.partition)
                if record.topic == bars and record.value:
                    # The worker dead-letters a record that is no bar, and says so.
                    with contextlib.suppress(ValidationError):
                        bar = MarketFeatures.decode(record.value)
                        if bar.closed:
                            published[bar.interval].update(bar.features)
        finally:
            await reader.close()
        fusion = self._settings.fusion
        return [
            partitioner_finding(placed, _NEWEST),
            feature_finding(fusion.strategy, fusion.trigger_interval_set, published),
        ]

    async def _instruments(self, bus: Bus) -> list[Finding]:
        table = Instruments(bus, self._clock, self._settings.run_mode, "aquiline-doctor")
        try:
            await table.start()
        finally:
            await table.close()
        self._calendars = table.calendars()
        self._symbols = table.symbols()
        unusable = {}
        for symbol in self._symbols:
            instrument = table.get(symbol)
            if instrument is None:
                continue
            if Decimal(instrument.price_increment) <= 0:
                unusable[symbol] = f"its price_increment is {instrument.price_increment}"
            try:
                SessionCalendar.of(instrument.calendar)
            except CalendarError as error:
                unusable[symbol] = str(error)
        changes = symbol_change_findings(table.symbol_changes(), self._symbols, self._clock.now_ms())
        return [*instrument_findings(self._settings, self._symbols, unusable), *changes]

    async def _control(self, bus: Bus) -> list[Finding]:
        table = ControlTable(bus, self._clock, self._settings.run_mode, "aquiline-doctor")
        try:
            await table.start()
        finally:
            await table.close()
        return halt_findings(table.state.halted(""), table.state.halted_symbols)

    async def _group(self, bus: Bus, survey: ClusterState, inputs: Sequence[TopicPartition]) -> Finding:
        fusion = self._settings.fusion
        if not inputs:
            return skipped(f"group {self._settings.fusion_group}", "the input topics do not exist")
        committed = {tp: offset for tp, offset in survey.committed.items() if tp in set(inputs)}
        reader = await bus.reader(client_id="aquiline-doctor")
        try:
            begins, ends = await reader.beginning_offsets(inputs), await reader.end_offsets(inputs)
        finally:
            await reader.close()
        return offset_findings(
            f"group {self._settings.fusion_group}",
            lag=sum(max(0, ends[tp] - offset) for tp, offset in committed.items()),
            lost=sum(max(0, begins[tp] - offset) for tp, offset in committed.items()),
            beyond=sum(max(0, offset - ends[tp]) for tp, offset in committed.items()),
            committed=bool(committed),
            start_from=fusion.start_from,
        )

    async def _skew(self, bus: Bus, inputs: Sequence[TopicPartition]) -> Finding:
        limit_ms = self._settings.fusion.max_skew_ms
        if self._probe:
            return skew_finding(await self._probed(bus), limit_ms, f"by records on {PROBE_TOPIC}")
        if not inputs:
            return skipped("clock", "the input topics do not exist; `--probe` compares the clocks without them")
        reader = await bus.reader(client_id="aquiline-doctor")
        try:
            ahead_ms = self._clock.now_ms() + limit_ms
            future = await reader.offsets_for_times(dict.fromkeys(inputs, ahead_ms))
        finally:
            await reader.close()
        if any(offset is not None for offset in future.values()):
            return fail(
                "clock",
                f"records have append times more than {limit_ms} ms ahead of this machine's clock, which is behind the broker's",
                "run NTP (chrony) on both machines",
            )
        return skipped("clock", f"no record is ahead of this clock; `--probe` compares the clocks with {_PROBES} records on {PROBE_TOPIC}")

    async def _probed(self, bus: Bus) -> int:
        """Return this machine's clock less the broker's, in ms: 0 as far as a round trip can tell."""
        admin = await bus.admin()
        try:
            await admin.create([NewTopic(PROBE_TOPIC, 1, {"message.timestamp.type": "LogAppendTime", "retention.ms": "60000"})])
        finally:
            await admin.close()
        producer = await bus.producer(client_id="aquiline-doctor", delivery_timeout_ms=self._settings.bus.request_timeout_ms)
        skews = []
        try:
            for _ in range(_PROBES):
                meter = SkewMeter()
                sent_ms = self._clock.now_ms()
                position = await (await producer.send(PROBE_TOPIC, key=None, value=b"probe"))
                meter.seen(sent_ms, position.timestamp_ms, self._clock.now_ms())
                skews.append(meter.skew_ms)
        finally:
            await producer.close()
        return min(skews, key=abs)

    async def _registry(self) -> list[Finding]:
        topics = self._settings.topics
        if topics.registry_url is None:
            return []
        decoded = ", ".join(f"{topic} as {kind}" for topic, kind in sorted(topics.decoders.items())) or "no topic"
        try:
            await SchemaRegistry(topics).check()
        except BusError as error:
            return [fail("schema registry", str(error), "check topics.registry_* and that the registry runs")]
        return [ok("schema registry", f"{topics.registry_url} answers; {decoded}")]

    # --- Redis, engines, GPU ------------------------------------------------------------------------------------------------------

    async def _redis(self) -> list[Finding]:
        settings = self._settings
        if not settings.redis.url.startswith("redis"):
            return [skipped("redis", f"redis.url is {settings.redis.url}")]
        # A decision's budget is too short to tell whether Redis is up at all.
        client = redis.connect(settings.redis.model_copy(update={"budget_ms": int(_REDIS_S * 1000)}))
        assert client is not None  # noqa: S101 - told by the line above
        try:
            async with asyncio.timeout(_REDIS_S):
                await client.ping()
                started = time.perf_counter()
                await client.ping()
                took_ms = (time.perf_counter() - started) * 1000
                said = {**await client.info("server"), **await client.info("memory")}
        except AuthenticationError as error:
            return [fail("redis", f"refuses the log-in: {error}", "check redis.username and redis.password")]
        except (RedisError, OSError, TimeoutError) as error:
            fix = "check redis.url (rediss:// for TLS), redis.ca_file, and that Redis is running; workers continue without it, more slowly"
            return [fail("redis", f"cannot be used: {error or type(error).__name__}", fix)]
        finally:
            await client.aclose()
        facts = RedisFacts(str(said["redis_version"]), int(said["maxmemory"]), str(said["maxmemory_policy"]), took_ms)
        return redis_findings(settings, facts)

    async def _engines(self) -> list[Finding]:
        settings = self._settings.engine
        count = len(set(self._settings.fusion.symbols) or self._symbols)
        found = []
        for url in settings.urls if settings.kind != "rules" else settings.urls[:1]:
            try:
                engine = connect_engine(settings.model_copy(update={"urls": [url]}), self._clock)
            except SettingsError as error:
                found.append(fail("engine", str(error), "correct engine.* in the settings"))
                continue
            try:
                info = await engine.info()
                found += engine_findings(self._settings, info, self._prompt if engine.capabilities.token_ids else None, count)
            except EngineError as error:
                found.append(fail(f"engine {engine.name}", error.detail, "start it with `aquiline engine serve`, or correct engine.urls"))
            finally:
                await engine.close()
        return found

    async def _gpu(self) -> list[Finding]:
        memory = await asyncio.to_thread(gpu_memory_bytes)
        if memory is None:
            return [skipped("gpu", "this machine has no NVIDIA driver; run the doctor where the engine runs")]
        return [ok("gpu", f"a GPU with {memory / _GIB:.0f} GiB")]
