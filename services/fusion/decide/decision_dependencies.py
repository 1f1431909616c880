"""The parts of a worker that all its decisions share."""

from __future__ import annotations

from dataclasses import dataclass

from services.core.clock import Clock
from services.core.settings import Settings
from services.fusion.decide.admission import Admission
from services.fusion.decide.control import ControlTable
from services.fusion.decide.guard import Guard
from services.fusion.deliver.publisher import Publisher
from services.fusion.inputs.tables import Tables
from services.fusion.prompt.builder import PromptBuilder
from services.fusion.prompt.traffic import EngineTraffic
from services.inference.engine import Engine


@dataclass(frozen=True, slots=True)
class DecisionDependencies:
    """Settings, clock, engines and the worker's parts that a decision calls."""

    settings: Settings
    clock: Clock
    prompts: PromptBuilder
    engine: Engine
    fallback: Engine | None
    guard: Guard
    control: ControlTable
    tables: Tables
    publisher: Publisher
    traffic: EngineTraffic
    admission: Admission
