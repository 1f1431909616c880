"""The rooms of a fusion worker: what is outside of it is opened, and all is wired from the lowest to the uppermost."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import redis.asyncio as redis_async
import structlog

from schemas import RunMode, Topic, topic_name
from services.core.bus import Bus, Consumer
from services.core.clock import Clock
from services.core.fusion_settings import FusionSettings
from services.core.global_tables import GlobalTables
from services.core.health import Health
from services.core.instruments import Instruments
from services.core.settings import Settings, SettingsError
from services.core.tokenizer import Tokenizer
from services.core.topic_admin import check_topics, optional_topics
from services.core.tracing import Tracer
from services.core.zombie_fence import ZombieFence
from services.fusion.decide.admission import Admission
from services.fusion.decide.cancel_on_change import CancelOnChange
from services.fusion.decide.control import ControlTable
from services.fusion.decide.decision_dependencies import DecisionDependencies
from services.fusion.decide.dispatcher import Dispatcher
from services.fusion.decide.guard import Guard, forbidden_engine
from services.fusion.decide.partition_work import PartitionWork
from services.fusion.decide.upkeep import CacheUpkeep
from services.fusion.deliver.accounts import Accounts, RecordCounter
from services.fusion.deliver.batches import BatchFolder
from services.fusion.deliver.ledger import Ledger
from services.fusion.deliver.ownership import Ownership
from services.fusion.deliver.partitions import Partitions
from services.fusion.deliver.publisher import Publisher
from services.fusion.deliver.recovery import Recovery
from services.fusion.inputs.tables import Tables
from services.fusion.observe.spans import TriggerSpans
from services.fusion.prompt.builder import PromptBuilder, fingerprint
from services.fusion.prompt.prewarm import Prewarmer
from services.fusion.prompt.store import PrefixStore
from services.fusion.prompt.traffic import EngineTraffic
from services.fusion.state.books import Books
from services.fusion.state.intake import Intake
from services.fusion.state.triggers import TriggerPolicy
from services.inference.engine import Engine, EngineError

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WorkerDependencies:
    """Everything outside the worker. The worker closes engines and Redis when it ends, and leaves the bus open."""

    bus: Bus
    settings: Settings
    clock: Clock
    health: Health
    engine: Engine
    fallback: Engine | None
    tokenizer: Tokenizer
    redis: redis_async.Redis | None


@dataclass(frozen=True, slots=True)
class Rooms:
    """What `open_rooms` has wired together."""

    accounts: Accounts
    counter: RecordCounter
    fence: ZombieFence
    instruments: Instruments
    control: ControlTable
    table_reader: GlobalTables
    books: Books
    intake: Intake
    prompts: PromptBuilder
    prewarmer: Prewarmer
    upkeep: CacheUpkeep
    consumer: Consumer
    partitions: Partitions
    publisher: Publisher
    ledger: Ledger
    folder: BatchFolder
    dispatcher: Dispatcher
    ownership: Ownership


async def open_rooms(dependencies: WorkerDependencies, opened: AsyncExitStack) -> Rooms:
    """Open what has to be closed again, and wire the rooms from the lowest to the uppermost."""
    bus, settings, clock, health = dependencies.bus, dependencies.settings, dependencies.clock, dependencies.health
    fusion, template, group = settings.fusion, settings.engine.chat_template, settings.fusion_group
    health.require("control", "assigned", "rebuilt")
    for engine in (dependencies.engine, dependencies.fallback):
        if engine is not None:
            opened.push_async_callback(engine.close)
    store = PrefixStore(dependencies.redis, settings.redis, clock, fingerprint(dependencies.tokenizer, template, fusion.strategy))
    opened.push_async_callback(store.close)
    tracer = Tracer.of(settings, "fusion")
    if tracer is not None:
        opened.push_async_callback(tracer.close)
    partition_count, optional = await _check_topics(bus, settings.run_mode)
    kv_tokens = await _check_engine(dependencies.engine, settings.run_mode)

    # State, and what is prompted of it.
    instruments = await _open_instruments(dependencies, opened)
    books = Books(fusion, instruments)
    intake = Intake(settings, clock, books, TriggerPolicy(fusion))
    try:
        prompts = PromptBuilder(fusion, dependencies.tokenizer, template, store, settings.redis.local_bytes)
    except ValueError as error:
        raise SettingsError(f"engine.chat_template = {template!r}: {error}") from error
    _check_flash(fusion, dependencies.engine, prompts)
    prompts.tables = tables = Tables(settings)
    table_reader = await _open_tables(dependencies, optional, tables, opened)
    traffic = EngineTraffic()
    prewarmer = Prewarmer(settings, clock, dependencies.engine, prompts, books, traffic=traffic)

    # Delivery.
    fence = ZombieFence.of(settings.bus)
    outputs = topic_name(Topic.STRATEGY_SIGNALS, settings.run_mode), topic_name(Topic.SIGNAL_AUDIT, settings.run_mode)
    partitions = Partitions(intake.topics, outputs)
    publisher = await _open_publisher(dependencies, fence, partitions, opened)
    accounts = Accounts()
    spans = TriggerSpans(tracer, partitions.inputs)
    ledger = Ledger(settings, clock, publisher, accounts, spans, config_version=prompts.version)
    opened.push_async_callback(ledger.stop)
    counter = RecordCounter(accounts, fusion)
    consumer = await bus.consumer(group=group, client_id=group, instance_id=settings.bus.instance_id)

    # Decisions.
    guard = Guard(fusion)
    cancel_on_change = CancelOnChange(publisher, prewarmer)
    control = ControlTable(bus, clock, settings.run_mode, f"{group}-control", cancel_on_change.on_control)
    opened.push_async_callback(control.close)
    await control.start()
    health.set("control")
    upkeep = CacheUpkeep(fusion, prompts, store, prewarmer, kv_tokens)
    deciding = DecisionDependencies(
        settings,
        clock,
        prompts,
        dependencies.engine,
        dependencies.fallback,
        guard,
        control,
        tables,
        publisher,
        traffic,
        Admission(fusion, clock, books, prewarmer.prefixes, skew=publisher.skew, tables=tables),
    )
    dispatcher = Dispatcher(
        deciding,
        health=health,
        consumer=consumer,
        books=books,
        partitions=partitions,
        ledger=ledger,
        spans=spans,
        cancel_on_change=cancel_on_change,
        upkeep=upkeep,
    )
    opened.callback(dispatcher.stop)
    tables.on_folded = cancel_on_change.on_table_record
    instruments.on_restatement = partial(intake.add_restatement, sink=dispatcher)
    instruments.on_symbol_change = books.expire
    partition_work = PartitionWork(
        fusion,
        health,
        partitions=partitions,
        books=books,
        intake=intake,
        prompts=prompts,
        prewarmer=prewarmer,
        spans=spans,
        publisher=publisher,
        ledger=ledger,
        control=control,
        guard=guard,
        dispatcher=dispatcher,
    )
    opened.push_async_callback(consumer.close)
    return Rooms(
        accounts=accounts,
        counter=counter,
        fence=fence,
        instruments=instruments,
        control=control,
        table_reader=table_reader,
        books=books,
        intake=intake,
        prompts=prompts,
        prewarmer=prewarmer,
        upkeep=upkeep,
        consumer=consumer,
        partitions=partitions,
        publisher=publisher,
        ledger=ledger,
        folder=BatchFolder(consumer, partitions, instruments, intake, ledger=ledger, counter=counter, spans=spans),
        dispatcher=dispatcher,
        ownership=Ownership(
            consumer, Recovery(bus, settings, clock, intake, books, tables=table_reader), partitions, partition_work, partition_count
        ),
    )


async def _open_instruments(dependencies: WorkerDependencies, opened: AsyncExitStack) -> Instruments:
    """Return the table of instruments, read to its end."""
    settings = dependencies.settings
    instruments = Instruments(dependencies.bus, dependencies.clock, settings.run_mode, f"{settings.fusion_group}-instruments")
    opened.push_async_callback(instruments.close)
    await instruments.start()
    await instruments.load_calendars()
    return instruments


async def _open_tables(dependencies: WorkerDependencies, topics: list[str], tables: Tables, opened: AsyncExitStack) -> GlobalTables:
    """Return what reads `topics` into `tables`, read to their ends."""
    client_id = f"{dependencies.settings.fusion_group}-tables"
    reader = GlobalTables(dependencies.bus, dependencies.clock, topics, tables.take, client_id)
    opened.push_async_callback(reader.close)
    await reader.start()
    tables.begin(reader.ends)
    return reader


async def _open_publisher(
    dependencies: WorkerDependencies, fence: ZombieFence, partitions: Partitions, opened: AsyncExitStack
) -> Publisher:
    bus, settings, group = dependencies.bus, dependencies.settings, dependencies.settings.fusion_group
    # A producer for signals alone, with a timeout below the delivery reserve: a stale signal cannot leave from its buffer.
    timeout_ms = settings.fusion.producer_timeout_ms
    signals = await bus.producer(client_id=f"{group}-signals", delivery_timeout_ms=timeout_ms, before_write=fence.check)
    opened.push_async_callback(signals.close)
    others = await bus.producer(client_id=group, before_write=fence.check)
    opened.push_async_callback(others.close)
    publisher = Publisher(signals, others, clock=dependencies.clock, run_mode=settings.run_mode, on_position=partitions.acknowledged)
    opened.push_async_callback(publisher.cancels.stop)
    return publisher


async def _check_topics(bus: Bus, run_mode: RunMode) -> tuple[int, list[str]]:
    """Return the partition count of the co-partitioned topics, and the optional ones that exist; raise BusError unless all can be used."""
    admin = await bus.admin()
    try:
        return await check_topics(admin, run_mode), await optional_topics(admin, run_mode)
    finally:
        await admin.close()


def _check_flash(fusion: FusionSettings, engine: Engine, prompts: PromptBuilder) -> None:
    """Raise SettingsError when engine or tokenizer cannot do what mode `flash` asks of them, where it is set."""
    if fusion.mode != "flash":
        return
    if not engine.capabilities.logprobs:
        raise SettingsError(
            f'fusion.mode = "flash" needs the log-probabilities of labels, which {engine.name} does not give: '
            'set fusion.mode = "fast", or take an engine of kind sglang, vllm or llamacpp'
        )
    try:
        labels = prompts.labels
    except ValueError as error:
        raise SettingsError(str(error)) from error
    _log.info("flash_labels", labels=list(labels.texts.values()), ids=labels.ids.tolist())


async def _check_engine(engine: Engine, run_mode: RunMode) -> int | None:
    """Return the engine's KV capacity in tokens; raise SettingsError when its answers may not be acted on.

    An engine that does not answer yet is no reason to wait: each decision checks it again.
    """
    try:
        info = await engine.info()
    except EngineError as error:
        _log.warning("engine_not_answering", reason=error.reason, detail=error.detail)
        return None
    forbidden = forbidden_engine(run_mode, info)
    if forbidden is not None:
        raise SettingsError(forbidden)
    _log.info("engine", name=info.name, source=info.source, model=info.model, kv_tokens=info.kv_capacity_tokens)
    return info.kv_capacity_tokens
