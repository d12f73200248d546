"""cifar10_quick in plain torch with DistributedDataParallel, as a user of TorchDistributor writes it.

What ``images_per_second`` and ``time_to_accuracy`` hold the engine against. Functions here run in the
processes that TorchDistributor starts, one for each worker, each with one thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from sparknet.rate_rule import RateRule
from tests.bench.plain_nets import cifar10_quick

# Pictures scored at once: a larger batch leaves the cache of a core.
TEST_BATCH = 250

MOMENTUM, DECAY = 0.9, 0.004
"""Those of cifar10_quick_solver.prototxt."""


def distributed(workers: int, function: Any, *arguments: Any) -> tuple[Any, float]:
    """What the first of ``workers`` processes returns, and when they were asked for (``time.time``)."""
    from pyspark.ml.torch.distributor import TorchDistributor

    submitted = time.time()
    runner = TorchDistributor(num_processes=workers, local_mode=False, use_gpu=False)
    return runner.run(function, *arguments), submitted


@contextmanager
def group() -> Iterator[None]:
    """This process as one of those that average their gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


class Net:
    """A replica and its optimiser, in channels_last as our nets are where it wins.

    It starts from ``weights``, float32 (P,) in Caffe's order, if they are given; biases learn at twice the
    rate, as the prototxt says. ``bf16`` computes its products in that, in training.
    """

    def __init__(self, lr: float, weights: Tensor | None = None, *, bf16: bool = False) -> None:
        torch.manual_seed(0)
        net = cifar10_quick()
        if weights is not None:
            torch.nn.utils.vector_to_parameters(weights, net.parameters())
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module = DistributedDataParallel(net)
        biases = [each for each in self.module.parameters() if each.ndim == 1]
        others = [each for each in self.module.parameters() if each.ndim > 1]
        groups = [{"params": others, "mult": 1}, {"params": biases, "mult": 2}]
        self.optimiser = torch.optim.SGD(groups, lr=lr, momentum=MOMENTUM, weight_decay=DECAY)
        self._lr, self._bf16 = lr, bf16
        self.set_rate(1.0)

    def set_rate(self, factor: float) -> None:
        """From the next step on: so many times ``lr``."""
        for group in self.optimiser.param_groups:
            group["lr"] = factor * self._lr * group["mult"]

    def step(self, pictures: Tensor, labels: Tensor) -> None:
        """On float32 (n, 3, 32, 32) and int64 (n,)."""
        self.optimiser.zero_grad()
        batch = pictures.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            outputs = self.module(batch)
        torch.nn.functional.cross_entropy(outputs.float(), labels).backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()

    def correct(self, pictures: Tensor, labels: Tensor) -> Tensor:
        """How many of them it names, int64 (1,); the replica alone, as nothing is averaged."""
        with torch.no_grad():
            batch = pictures.contiguous(memory_format=torch.channels_last)
            outputs: Tensor = self.module.module(batch)
        return (outputs.argmax(1) == labels).sum().reshape(1)


@dataclass(frozen=True, kw_only=True)
class Task:
    """Train to ``goal`` (0 to 1) on the data in ``folder`` (``save``), or until ``images`` have been read.

    ``rate`` is how the rate changes on the way to ``images``, None if it does not.
    Tests are made every ``test_images`` images of all processes together, ``batch`` of each a step.
    """

    folder: str
    goal: float
    images: int
    test_images: int
    batch: int
    lr: float
    seed: int
    rate: RateRule | None = None
    bf16: bool = False


NAMES = ("images", "labels", "test_images", "test_labels", "mean", "weights")


def save(folder: Path, **arrays: Any) -> None:
    """Leave the arrays of ``NAMES`` where every process finds them."""
    for name in NAMES:
        np.save(folder / f"{name}.npy", arrays[name])


def train(task: Task) -> dict[str, Any]:
    """``first`` and ``tests``: when the first step began, and (images, time, accuracy) of each test, by
    ``time.time``; ``test_seconds``: how long tests took together."""
    with group():  # the net is gone when the group ends: a process that still has it may abort at its exit
        return _trained(task)


def _trained(task: Task) -> dict[str, Any]:
    rank, count = dist.get_rank(), dist.get_world_size()
    every, steps = task.test_images // (count * task.batch), task.images // (count * task.batch)
    data = _Data(task, rank, count)
    net = Net(task.lr, data.weights, bf16=task.bf16)
    batches = data.batches(task)
    tests: list[tuple[int, float, float]] = []
    testing, first = 0.0, time.time()
    for step in range(1, steps + 1):
        if task.rate:
            net.set_rate(task.rate.factor(step, steps))
        net.step(*next(batches))
        if step % every:
            continue
        began = time.time()
        accuracy = data.accuracy(net)
        tests.append((step * count * task.batch, time.time(), accuracy))
        testing += time.time() - began
        if accuracy >= task.goal:
            break
    return {"first": first, "tests": tests, "test_seconds": testing}


class _Data:
    """This process's part of both sets, in memory."""

    def __init__(self, task: Task, rank: int, count: int) -> None:
        folder = Path(task.folder)
        parts = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in NAMES}
        self._total = len(parts["test_labels"])
        for name in ("images", "labels", "test_images", "test_labels"):
            whole = len(parts[name])
            parts[name] = parts[name][rank * whole // count : (rank + 1) * whole // count]
        self._parts = {name: torch.from_numpy(np.array(part)) for name, part in parts.items()}
        self._rank = rank

    @property
    def weights(self) -> Tensor:
        return self._parts["weights"]

    def batches(self, task: Task) -> Iterator[tuple[Tensor, Tensor]]:
        """Every record once an epoch, in another order each time."""
        generator = torch.Generator().manual_seed(1000 * task.seed + self._rank)
        while True:
            order = torch.randperm(len(self._parts["labels"]), generator=generator)
            for start in range(0, len(order) - task.batch + 1, task.batch):
                rows = order[start : start + task.batch]
                yield self._pictures("images", rows), self._parts["labels"][rows]

    def accuracy(self, net: Net) -> float:
        """On the whole test set, of which each process scores its part."""
        labels, found = self._parts["test_labels"], torch.zeros(1, dtype=torch.int64)
        for start in range(0, len(labels), TEST_BATCH):
            rows = slice(start, start + TEST_BATCH)
            found += net.correct(self._pictures("test_images", rows), labels[rows])
        dist.all_reduce(found)
        return float(found) / self._total

    def _pictures(self, name: str, rows: Tensor | slice) -> Tensor:
        return self._parts[name][rows].float() - self._parts["mean"]
