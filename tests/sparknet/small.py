"""A small problem that trains in milliseconds: drawn pictures, a two-layer net, and recipes for it."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import nn

from sparknet.data import Examples, Transform
from sparknet.replica import Replica, TorchReplica
from sparknet.weights import Vector
from sparknet.worker import Recipe

SCALE = Transform(scale=1 / 256)


def pictures(records: int = 240, seed: int = 0) -> Examples:
    """uint8 (records, 1, 4, 4) in 3 classes; the class brightens one row."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=records)
    images = rng.integers(0, 160, size=(records, 1, 4, 4), dtype=np.uint8)
    images[np.arange(records), 0, labels] += 64
    return Examples(images, labels.astype(np.int64))


def small_net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3))


def momentum_sgd(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.004)  # type: ignore[arg-type]


def small_replica() -> Replica:
    return TorchReplica(small_net(), momentum_sgd)


def small_recipe(batch_size: int = 10, **options: object) -> Recipe:
    settings = {"replica": small_replica, "transform": SCALE, "sampling": "epoch", "seed": 3, **options}
    return Recipe(batch_size=batch_size, **settings)  # type: ignore[arg-type]


def digest(weights: Vector) -> str:
    return hashlib.sha256(np.ascontiguousarray(weights).tobytes()).hexdigest()
