"""The files of a model's folder: its config and its weights in safetensors, read with clear errors and written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

_SAMPLES: Final = 32
_SAMPLE_BYTES: Final = 1 << 16


class ModelError(ValueError):
    """The model cannot be read or written; the text says why."""


def read_config(folder: Path) -> dict[str, Any]:
    """Return a model's `config.json`; raise ModelError."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}/config.json cannot be read: {error}; name the folder of a model") from error
    if not isinstance(config, dict):
        raise ModelError(f"{folder}/config.json holds no settings of a model; name the folder of a model")
    return config


def digest_of(folder: Path) -> str:
    """Return a digest of a model's config and weights, by which a training knows its model again; raise ModelError."""
    read_config(folder)
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for shard in shards_of(folder):
        digest.update(f"{shard.name} {digest_of_file(shard)}".encode())
    return digest.hexdigest()[:16]


def digest_of_file(file: Path) -> str:
    """Return a digest of a file's size and of bytes from `_SAMPLES` places: all bytes of an 8B model would take a minute."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as source:
        for number in range(_SAMPLES):
            source.seek(number * size // _SAMPLES)
            digest.update(source.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:12]


def read_tensors(shard: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file; raise ModelError."""
    try:
        return load_file(str(shard))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{shard} cannot be read: {error}; copy the model again") from error


def write_tensors(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Write tensors to a safetensors file, which is there whole or not at all; raise ModelError."""
    partial = file.with_name(file.name + ".partial")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(partial), metadata={"format": "pt"})
        partial.replace(file)
    except (OSError, SafetensorError) as error:  # a full disk is a SafetensorError
        partial.unlink(missing_ok=True)
        raise ModelError(f"{file} cannot be written: {error}") from error


def shards_of(folder: Path) -> list[Path]:
    """Return the files of a model's weights; raise ModelError where there are none."""
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise ModelError(f"{folder} holds no *.safetensors files, which hold a model's weights")
    return shards


@contextmanager
def written(folder: Path) -> Iterator[Path]:
    """Yield a folder that becomes `folder` when it is complete; raise ModelError where that is there already."""
    if folder.exists():
        raise ModelError(f"{folder} exists; name a folder that does not, so that nothing is mixed")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.replace(folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise ModelError(f"{folder} cannot be written: {error}") from error
        raise


def write_json(file: Path, values: object) -> None:
    """Write `values` as indented JSON."""
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
