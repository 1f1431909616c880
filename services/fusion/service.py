"""Builds the worker for a process of its own: bus, engine, tokenizer and Redis as the settings say."""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.resources import files
from typing import Protocol

from services.core import redis
from services.core.bus.connect import connect as connect_bus
from services.core.bus.port import Bus
from services.core.clock import Clock
from services.core.health import Health
from services.core.settings import ENGINE_GROUP, EngineSettings, Settings, SettingsError
from services.core.tokenizer import Tokenizer
from services.fusion.rooms import WorkerDependencies
from services.fusion.worker import FusionWorker
from services.inference.engine import Engine, EngineInfo


class Connect(Protocol):
    """An entry point of the group `aquiline.engines`."""

    def __call__(self, settings: EngineSettings, clock: Clock) -> Engine:
        """Return an engine; nothing is opened before its first call."""
        ...


def connect_engine(settings: EngineSettings, clock: Clock) -> Engine:
    """Return the engine of the entry point named `settings.kind`; raise SettingsError when it refuses the settings."""
    connect: Connect = next(iter(entry_points(group=ENGINE_GROUP, name=settings.kind))).load()
    try:
        return connect(settings, clock)
    except ValueError as error:
        raise SettingsError(f"engine: {error}") from error


async def engine_info(settings: EngineSettings, clock: Clock) -> EngineInfo:
    """Return what the engine says of itself; raise EngineError when it does not answer, SettingsError when it refuses the settings."""
    engine = connect_engine(settings, clock)
    try:
        return await engine.info()
    finally:
        await engine.close()


def load_tokenizer(settings: EngineSettings) -> Tokenizer:
    """Return the tokenizer of prompts; raise SettingsError when its file cannot be used."""
    try:
        if settings.tokenizer_file is not None:
            return Tokenizer.from_file(settings.tokenizer_file)
        shipped = files("services.inference") / "data" / "tokenizer.json"
        return Tokenizer(shipped.read_bytes(), "the simulator's tokenizer")
    except ValueError as error:
        raise SettingsError(f"engine.tokenizer_file: {error}") from error


async def make_worker(bus: Bus, settings: Settings, clock: Clock, health: Health, engine: Engine | None = None) -> FusionWorker:
    """Return a worker on `bus`, opened, beside `engine` or by default the one of the settings.

    Raises SettingsError when the settings cannot be used, BusError when the bus cannot.
    """
    fallback = connect_engine(settings.engine.model_copy(update={"kind": "rules"}), clock) if settings.fusion.fallback == "rules" else None
    return await FusionWorker.open(
        WorkerDependencies(
            bus=bus,
            settings=settings,
            clock=clock,
            health=health,
            engine=engine or connect_engine(settings.engine, clock),
            fallback=fallback,
            tokenizer=load_tokenizer(settings.engine),
            redis=redis.connect(settings.redis),
        )
    )


async def build(settings: Settings, clock: Clock, health: Health) -> FusionWorker:
    """Return a worker on the bus that the settings name."""
    return await make_worker(connect_bus(settings.bus, clock, settings.topics), settings, clock, health)
