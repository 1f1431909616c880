"""Trains the chart network, seeded and on one thread: the same data and seed give the same weights, bit for bit.

The validation part alone decides when to stop; the test part is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from services.vision.dataset import Samples
from services.vision.forecast_quality import log_loss
from services.vision.logistic import calibrate, sigmoid
from services.vision.model_card import TrainingFacts
from services.vision.network import ChartNetwork, folded, to_tensors
from services.vision.render import Floats, Pixels
from services.vision.weights import About, encode_weights, weights_hash


@dataclass(frozen=True, slots=True)
class Plan:
    """Training parameters: those of the paper except for the learning rate, since there are a hundred times fewer images."""

    seed: int = 1
    epochs: int = 20
    patience: int = 3
    """Epochs without a lower validation loss after which it stops."""
    batch: int = 128
    learning_rate: float = 1e-4
    weight_decay: float = 1e-2


@dataclass(frozen=True, slots=True)
class Epoch:
    """The mean losses of one pass over the training windows, in nats."""

    number: int
    train_loss: float
    validation_loss: float


@dataclass(frozen=True, slots=True)
class Trained:
    """The bytes of the weights file, and how they were trained."""

    data: bytes
    facts: TrainingFacts


def train(train_part: Samples, validation: Samples, plan: Plan, progress: Callable[[Epoch], None]) -> Trained:
    """Return the network of the epoch with the lowest validation loss, calibrated on the validation part.

    `progress` is called after each epoch. Changes torch's global state: its seed, one thread, deterministic algorithms.
    """
    torch.manual_seed(plan.seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    network = ChartNetwork(normalized=True)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    images, held_out = train_part.images(), validation.images()
    up = torch.from_numpy(train_part.up.astype(np.float32))
    order = np.random.default_rng(plan.seed)
    epochs: list[Epoch] = []
    best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    best_epoch = 0
    for number in range(1, plan.epochs + 1):
        losses = _one_pass(network, optimizer, (images, up), order.permutation(len(images)), plan.batch)
        epoch = Epoch(number, losses, log_loss(sigmoid(logits(network, held_out)), validation.up))
        progress(epoch)
        epochs.append(epoch)
        if epoch.validation_loss <= min(one.validation_loss for one in epochs):
            best, best_epoch = {name: tensor.clone() for name, tensor in network.state_dict().items()}, number
        elif number - best_epoch >= plan.patience:
            break
    network.load_state_dict(best)
    scale, shift = calibrate(logits(network, held_out), validation.up)
    spec = train_part.spec
    about = About(
        bars=spec.bars,
        moving_average=spec.moving_average,
        volume=spec.volume,
        horizon_bars=train_part.horizon,
        seed=plan.seed,
        train_until_ms=int(validation.label_end_ms.max()) + 1,
    )
    shipped = folded(network.eval(), scale=scale, shift=shift)
    data = encode_weights(to_tensors(shipped), about)
    facts = TrainingFacts(
        seed=plan.seed,
        epochs=[(epoch.number, epoch.train_loss, epoch.validation_loss) for epoch in epochs],
        best_epoch=best_epoch,
        scale=scale,
        shift=shift,
        sha256=weights_hash(data),
        bytes=len(data),
        parameters=sum(tensor.numel() for tensor in shipped.parameters()),
    )
    return Trained(data, facts)


def logits(network: ChartNetwork, images: Pixels) -> Floats:
    """Return the network's logits (n,) for images (n, height, width), in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        parts = [network(_input(images[first : first + 256])).numpy() for first in range(0, len(images), 256)]
    return np.concatenate(parts).astype(np.float64)


def _one_pass(
    network: ChartNetwork,
    optimizer: torch.optim.Optimizer,
    learned: tuple[Pixels, torch.Tensor],
    order: NDArray[np.int64],
    batch: int,
) -> float:
    images, up = learned
    network.train()
    total = 0.0
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(network(_input(images[rows])), up[torch.from_numpy(rows)])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(loss.detach()) * len(rows)
    return total / len(order)


def _input(images: Pixels) -> torch.Tensor:
    return torch.from_numpy(images).unsqueeze(1).to(torch.float32) / 255
