"""Rationales: the model's reasons, for the audit. They are read after the signal was published, and never delay another signal."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Final
from uuid import uuid4

import structlog

from services.core import metrics
from services.fusion.decide.answer import RATIONALE_TOKENS
from services.fusion.decide.decision_dependencies import DecisionDependencies
from services.fusion.prompt.builder import Prompt
from services.inference.engine import Engine, EngineError, EngineRequest

_SENTENCE: Final = r"[!#-\[\]-~][ !#-\[\]-~]{0,159}"

_log = structlog.get_logger()


def may_explain(dependencies: DecisionDependencies) -> bool:
    """Return whether one more rationale may be written: at most as many at once as decisions, so that an engine has room for both."""
    return dependencies.traffic.rationales < dependencies.settings.fusion.permits


async def explain_label(
    dependencies: DecisionDependencies, engine: Engine, request: EngineRequest, prompt: Prompt, label: str
) -> str | None:
    """Return why `label` was answered to `request` in mode `flash`, None where it is not to be asked, or there was no time for it.

    It is asked only while no decision holds a permit; one that begins meanwhile ends the call.
    """
    fusion, traffic = dependencies.settings.fusion, dependencies.traffic
    if fusion.rationale == "none" or traffic.decisions or not may_explain(dependencies):
        return None
    asked = replace(
        request,
        rid=uuid4().hex,
        input_ids=dependencies.prompts.rationale(prompt, label),
        sampling=replace(request.sampling, max_new_tokens=RATIONALE_TOKENS, json_schema=None, regex=_SENTENCE if fusion.grammar else None),
        background=True,
    )
    with traffic.rationale():
        reading = asyncio.create_task(_read(engine, asked), name=f"rationale {asked.rid}")
        busy = asyncio.create_task(traffic.busy(), name="decision-begins")
        try:
            await asyncio.wait([reading, busy], return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else None
        except EngineError as error:
            _log.info("rationale_failed", reason=error.reason, detail=error.detail)
            return None
        finally:
            for task in (reading, busy):
                task.cancel()
            await asyncio.wait([reading, busy])


async def _read(engine: Engine, request: EngineRequest) -> str:
    text = ""
    async with aclosing(engine.stream(request)) as chunks:
        async for chunk in chunks:
            text += chunk.text
            if chunk.usage is not None:
                metrics.PROMPT_TOKENS.labels("rationale").inc(chunk.usage.prompt_tokens)
                metrics.CACHED_TOKENS.labels("rationale").inc(chunk.usage.cached_tokens or 0)
                metrics.OUTPUT_TOKENS.inc(chunk.usage.output_tokens)
    return text.strip()[:400]
