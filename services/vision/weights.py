"""Reads and writes the weights file: tensors in half precision and what the network was trained for.

The same content gives the same bytes. The network runs, and is evaluated, in single precision on the values in the file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from services.vision.forecaster import ForecasterError
from services.vision.network import CHANNELS, ChartNetwork
from services.vision.render import ChartSpec

MAX_BYTES: Final = 3_000_000
_KEY: Final = "aquiline"


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


def encode_weights(network: ChartNetwork, about: About) -> bytes:
    """Return the file's bytes; raise ValueError when they are more than 3 MB."""
    tensors = {name: tensor.detach().cpu().to(torch.float16).contiguous() for name, tensor in network.state_dict().items()}
    # One key: safetensors writes several in an order that changes from run to run, and the hash with it.
    data: bytes = save(tensors, metadata={_KEY: json.dumps(asdict(about), sort_keys=True)})
    if len(data) > MAX_BYTES:
        raise ValueError(f"the weights take {len(data)} bytes; at most {MAX_BYTES} are shipped: use fewer channels than {CHANNELS}")
    return data


def weights_hash(data: bytes) -> str:
    """Return the SHA-256 of a weights file in hex; its first 12 digits are the detector's version."""
    return hashlib.sha256(data).hexdigest()


def read_weights(path: Path) -> tuple[ChartNetwork, About, str]:
    """Return the network in evaluation mode, what it was trained for and its hash; raise ForecasterError with what is wrong."""
    try:
        data = path.read_bytes()
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).to(torch.float32) for name in file.keys()}  # noqa: SIM118 - no mapping
        about = About(**json.loads(metadata[_KEY]))
        network = ChartNetwork(normalized=False)
        network.load_state_dict(tensors)
    except OSError as error:
        raise ForecasterError(
            f"weights file {str(path)!r} cannot be read ({error.strerror or error}); train one with `aquiline vision train`, "
            "or leave vision.weights_file out to use those shipped"
        ) from error
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ForecasterError(
            f"weights file {str(path)!r} does not hold this version's chart network ({error}); train it anew with `aquiline vision train`"
        ) from error
    ChartSpec(bars=about.bars)  # type: ignore[arg-type] # refuses a number of bars that cannot be drawn
    return network.eval(), about, weights_hash(data)
