"""Opens a model's context beyond its native length: a folder beside it that differs in `config.json` alone.

LongRoPE's factors stretch the rotary positions; MiniCPM4.1's own `config.json` names them for 65,536 tokens, and its authors
validated them at 131,072. The weights stay where they are: the overlay links to every other file.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from services.inference.launcher.folders import ModelFolder
from services.inference.launcher.presets import LaunchError


def overlay(model: ModelFolder, context: int) -> Path:
    """Write the folder that serves `model` up to `context` tokens, and return it; one that is there is written anew.

    Raises LaunchError when `config.json` names no LongRoPE factors for each pair of a head's dimensions.
    """
    scaling = model.rope_scaling or {}
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind != "longrope":
        raise LaunchError(
            f"{model.path}: config.json names no LongRoPE factors (rope_scaling is {model.rope_scaling!r}), so that --longrope has "
            "nothing to stretch positions with: put the model card's rope_scaling into config.json, or serve without --longrope"
        )
    pairs = model.head_dim // 2
    for name in ("short_factor", "long_factor"):
        factors = scaling.get(name)
        if not isinstance(factors, list) or len(factors) != pairs:
            count = len(factors) if isinstance(factors, list) else "no"
            raise LaunchError(f"{model.path}: rope_scaling.{name} has {count} factors; a head of {model.head_dim} dimensions needs {pairs}")
    # SGLang derives the scale of attention from both lengths: without the first it takes the new length for the native one.
    stretched = scaling | {
        "original_max_position_embeddings": scaling.get("original_max_position_embeddings", model.max_position_embeddings)
    }
    return _write(model, context, {"rope_scaling": stretched})


def lengthen(draft: ModelFolder, context: int) -> Path:
    """Write the folder that serves `draft` with a rope table of `context` positions, and return it; its factors stay as they are."""
    return _write(draft, context, {})


def _write(model: ModelFolder, context: int, changed: dict[str, object]) -> Path:
    source = model.path.resolve()
    folder = source.with_name(f"{source.name}-context-{context}")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file in source.iterdir():
            if file.name != "config.json":
                (folder / file.name).symlink_to(file)
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        written = config | changed | {"max_position_embeddings": context}
        (folder / "config.json").write_text(json.dumps(written, indent=2), encoding="utf-8")
    except OSError as error:
        raise LaunchError(f"the overlay {str(folder)!r} cannot be written: {error}") from error
    return folder
