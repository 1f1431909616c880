"""What would be started and what is wrong with it: folders, checks and command of one engine, before anything runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.inference.launcher import checks, command, folders
from services.inference.launcher.gpu_memory import gpu_memory_bytes
from services.inference.launcher.longrope import lengthen, overlay
from services.inference.launcher.presets import LaunchError, Preset

LONG_CONTEXT = 131_072
"""Tokens that LongRoPE opens MiniCPM4.1 to, unless another length is asked for."""


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """One engine, ready to be started when nothing is `refused`."""

    launch: command.Launch
    model_path: Path
    context: int
    refused: list[str]
    """What would end in a crash or in an engine that accepts no drafts, a sentence each."""
    notes: list[str] = field(default_factory=list)
    """What is worth knowing and stops nothing."""


def plan(
    preset: Preset,
    *,
    model_path: Path,
    draft_path: Path | None,
    context: int | None,
    longrope: bool,
    permits: int,
    host: str,
    port: int,
    extra: Sequence[str] = (),
    python: str = sys.executable,
) -> EnginePlan:
    """Read the folders, open the context when `longrope` asks for it, check all of it, and return the command.

    `draft_path` None serves without EAGLE3, as does a model with linear attention whatever the path. `context` None takes the preset's
    length, or LongRoPE's. What is wrong is in the plan: nothing is raised, so that a dry run shows the command beside the refusals.
    """
    tokens = context or (LONG_CONTEXT if longrope else preset.engine.context_tokens)
    refused: list[str] = []
    target = _read(model_path, "model", refused)
    if target is not None and target.is_hybrid:
        draft_path = None
    draft = None if draft_path is None else _read(draft_path, "draft", refused)
    if longrope:
        try:
            target = None if target is None else folders.read(overlay(target, tokens), what="model")
            if draft is not None and draft.max_position_embeddings < tokens:
                draft = folders.read(lengthen(draft, tokens), what="draft")
        except LaunchError as error:
            refused.append(str(error))
    launch = command.launch(
        preset,
        model_path=model_path if target is None else target.path,
        draft_path=draft_path if draft is None else draft.path,
        target=target,
        context=tokens,
        host=host,
        port=port,
        extra=extra,
        python=python,
    )
    notes: list[str] = []
    if target is not None and (draft is not None or draft_path is None):
        gpu_bytes = gpu_memory_bytes() or int(preset.card_gib * checks.GIB)
        refused += checks.findings(preset, target, draft, gpu_bytes=gpu_bytes, context=tokens, permits=permits, extra=extra)
        notes = checks.notes(target, draft)
        notes.append(checks.memory(preset, target, draft, gpu_bytes=gpu_bytes, context=tokens, permits=permits).sentence())
    return EnginePlan(launch, model_path if target is None else target.path, tokens, refused, notes)


def _read(path: Path, what: str, refused: list[str]) -> folders.ModelFolder | None:
    try:
        return folders.read(path, what=what)
    except LaunchError as error:
        refused.append(str(error))
        return None
