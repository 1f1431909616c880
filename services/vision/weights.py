"""Reads and writes the weights file: tensors in half precision and what the network was trained for.

The same content gives the same bytes. The network runs, and is evaluated, in single precision on the values in the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from services.vision.architecture import BLOCKS, tensor_shapes
from services.vision.forecaster import ForecasterError
from services.vision.render import ChartSpec

MAX_BYTES: Final = 3_000_000
_KEY: Final = "aquiline"
_LENGTH_BYTES: Final = 8

Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class About:
    """The metadata that is stored with the tensors."""

    bars: int
    moving_average: bool
    volume: bool
    horizon_bars: int
    seed: int
    train_until_ms: int
    """Labels decided at this time or later were neither learned from nor looked at."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A weights file: its tensors in single precision by name, what they were trained for, and the SHA-256 of the file in hex."""

    tensors: Tensors
    about: About
    digest: str

    @property
    def spec(self) -> ChartSpec:
        """Return the images that the network was trained on."""
        return ChartSpec(bars=self.about.bars, moving_average=self.about.moving_average, volume=self.about.volume)  # type: ignore[arg-type]


def encode_weights(tensors: Tensors, about: About) -> bytes:
    """Return the file's bytes; raise ValueError when they are more than 3 MB."""
    halves = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    # One key: safetensors writes several in an order that changes from run to run, and the hash with it.
    data: bytes = save(halves, metadata={_KEY: json.dumps(asdict(about), sort_keys=True)})
    if len(data) > MAX_BYTES:
        channels = tuple(block.channels for block in BLOCKS)
        raise ValueError(f"the weights take {len(data)} bytes; at most {MAX_BYTES} are shipped: use fewer channels than {channels}")
    return data


def weights_hash(data: bytes) -> str:
    """Return the SHA-256 of a weights file in hex; its first 12 digits are the detector's version."""
    return hashlib.sha256(data).hexdigest()


def read_weights(path: Path) -> Weights:
    """Return the weights in the file; raise ForecasterError with what is wrong."""
    try:
        data = path.read_bytes()
        tensors = {name: tensor.astype(np.float32) for name, tensor in load(data).items()}
        about = About(**json.loads(_metadata(data)[_KEY]))
        _check_shapes(tensors)
        weights = Weights(tensors, about, weights_hash(data))
        _ = weights.spec  # refuses a number of bars that cannot be drawn
    except OSError as error:
        raise ForecasterError(
            f"weights file {str(path)!r} cannot be read ({error.strerror or error}); train one with `aquiline vision train`, "
            "or leave vision.weights_file out to use those shipped"
        ) from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ForecasterError(
            f"weights file {str(path)!r} does not hold this version's chart network ({error}); train it anew with `aquiline vision train`"
        ) from error
    return weights


def _check_shapes(tensors: Tensors) -> None:
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != tensor_shapes():
        raise ValueError(f"its tensors are {shapes}; expected {tensor_shapes()}")


def _metadata(data: bytes) -> dict[str, Any]:
    """Return the file's metadata. Format: the header's length in 8 bytes, little-endian, then the header in JSON."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    metadata: dict[str, Any] = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length]).get("__metadata__", {})
    return metadata
