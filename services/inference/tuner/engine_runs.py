"""The engine under measurement: started, warmed and stopped for each combination of a sweep, or already running, for a calibration."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.core.clock import SystemClock
from services.inference import calibrate
from services.inference.engine import Engine
from services.inference.launcher import checks, command, folders, warming
from services.inference.launcher.gpu_memory import gpu_memory_bytes
from services.inference.launcher.presets import LaunchError, Preset
from services.inference.launcher.process import EngineProcess
from services.inference.sglang_client import SGLangEngine
from services.inference.simulator.timing import Calibration
from services.inference.tuner.sweep import Plan

_UP_TIMEOUT_S = 900.0
_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class EngineRuns:
    """Starts, warms and stops an engine for each combination of a sweep."""

    model_path: Path
    draft_path: Path
    plan: Plan
    port: int
    extra: Sequence[str]
    regex: str
    """The answer's grammar, which is compiled while warming."""

    @asynccontextmanager
    async def __call__(self, preset: Preset) -> AsyncIterator[Engine]:
        """Give the warm engine; raise LaunchError when it is refused or does not come up, EngineError when warming fails."""
        target, draft = folders.read(self.model_path, what="model"), folders.read(self.draft_path, what="draft")
        context, permits = max(self.plan.lengths) + self.plan.answer_tokens, max(self.plan.at_once)
        context = min(max(context, preset.engine.context_tokens), target.max_position_embeddings)
        gpu_bytes = gpu_memory_bytes() or int(preset.card_gib * _GIB)
        found = checks.findings(
            preset, target, draft, gpu_bytes=gpu_bytes, context=max(self.plan.lengths), permits=permits, extra=self.extra
        )
        if found:
            raise LaunchError("; ".join(found))
        launch = command.launch(
            preset,
            model_path=self.model_path,
            draft_path=self.draft_path,
            target=target,
            context=context,
            host="127.0.0.1",
            port=self.port,
            extra=self.extra,
        )
        process = await EngineProcess.start(launch)
        try:
            await process.wait_until_up(_UP_TIMEOUT_S)
            engine = SGLangEngine(launch.url, SystemClock())
            try:
                await warming.warm(engine, context=max(self.plan.lengths), permits=permits, regex=self.regex)
                yield engine
            finally:
                await engine.close()
        finally:
            await process.stop()


async def calibrated(
    url: str, *, lengths: Sequence[int], at_once: Sequence[int], rounds: int, accelerator: str, say: Callable[[str], None]
) -> Calibration:
    """Measure the engine at `url`; raise EngineError, CalibrationError and, for a bad address, ValueError."""
    engine = SGLangEngine(url, SystemClock())
    try:
        info = await engine.info()
        measured = await calibrate.measure(engine, lengths=lengths, at_once=at_once, rounds=rounds, say=say)
    finally:
        await engine.close()
    today = dt.datetime.now(dt.UTC).date()
    source = f"Measured on {today} by `aquiline engine calibrate`: greedy answers, one client, medians over {rounds} rounds."
    return calibrate.calibration(measured, info, accelerator=accelerator, source=source)
