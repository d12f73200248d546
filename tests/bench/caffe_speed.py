"""What a training step of the Caffe path costs beside the same net written by hand in torch.

    python -m tests.bench.caffe_speed [--nets lenet,cifar10_quick] [--threads 1,2] [--rounds 9] [--clock cpu]

A step is forward, backward and update (SGD with momentum and decay, Caffe's multipliers of rate and decay).
Three programs take turns, one step each: the solver of this package; plain torch in its default layout; plain
torch with channels last. The plain ones run `torch.optim.SGD(foreach=True)`, and before they are timed all
three have made the same loss and the same gradients of the same weights. Times are medians; the last columns
are what the Caffe path takes of the default layout's time, and of the better layout's. On a machine with
other work use `--clock cpu` (CPU seconds), for two threads with OMP_WAIT_POLICY=passive in the
environment, so that waiting for the other thread does not count; and compare within one row only.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from sparknet.caffe import schema
from sparknet.caffe.net import Net
from sparknet.caffe.schema.caffe_pb2 import SolverParameter
from sparknet.caffe.solver import Solver
from tests.bench.plain_nets import PLAIN, PlainNet

MODELS = Path(__file__).parents[2] / "apps" / "models"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
RATE, MOMENTUM, DECAY = 1e-4, 0.9, 5e-4
LAYOUTS = (torch.contiguous_format, torch.channels_last)
COLUMNS = ("Caffe path", "plain", "plain, channels last")


def prototxt(name: str) -> Path:
    return MODELS / f"{name}_train_test.prototxt"


def sgd(net: Net, module: nn.Module) -> torch.optim.Optimizer:
    """The update of ``net``'s solver, as torch's own optimizer."""
    groups = [
        {"params": [weight], "lr": RATE * blob.lr_mult, "weight_decay": DECAY * blob.decay_mult}
        for blob, weight in zip(net.learnable, module.parameters(), strict=True)
    ]
    merged = {(g["lr"], g["weight_decay"]): {**g, "params": []} for g in groups}
    for group in groups:
        merged[group["lr"], group["weight_decay"]]["params"] += group["params"]
    return torch.optim.SGD(list(merged.values()), momentum=MOMENTUM, foreach=True)


def by_hand(net: Net, plain: PlainNet, layout: torch.memory_format) -> nn.Module:
    """The plain net with the weights of ``net``."""
    module = plain.build()
    with torch.no_grad():
        for blob, weight in zip(net.learnable, module.parameters(), strict=True):
            weight.copy_(blob.data)
    return module.to(memory_format=layout)


def check_same(name: str, plain: PlainNet) -> None:
    """Raise AssertionError unless both make the same loss and gradients (two images, no dropout)."""
    train, net = (Net.for_file(prototxt(name), phase) for phase in (schema.TRAIN, schema.TEST))
    net.share_with(train)
    images, labels = torch.randn(2, *plain.image), torch.tensor([1, 2])
    net.forward({"data": images, "label": labels.float()})
    for blob in net.learnable:
        blob.diff.zero_()
    net.backward()
    for layout in LAYOUTS:
        module = by_hand(train, plain, layout).eval()
        loss = nn.functional.cross_entropy(module(images), labels)
        loss.backward()
        torch.testing.assert_close(net.loss, loss.detach())
        gradients = [
            p.grad for p in module.parameters() if p.grad is not None
        ]  # the auxiliary ones have none
        for blob, gradient in zip(net.learnable, gradients, strict=True):
            # a rounding error turns a ReLU or the winner of a pool over here and there: 1 % of a gradient
            assert (blob.diff - gradient).norm() <= 0.05 * gradient.norm(), f"{name}: {blob.name}"


def caffe_step(net: Net, images: Tensor, labels: Tensor) -> Callable[[], object]:
    param = SolverParameter(
        type="SGD", lr_policy="fixed", base_lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, max_iter=1
    )
    solver, feed = Solver(param, net), {"data": images, "label": labels.float()}
    return lambda: solver.step(1, lambda: feed)


def plain_step(
    net: Net, plain: PlainNet, images: Tensor, labels: Tensor, layout: torch.memory_format
) -> Callable[[], object]:
    module = by_hand(net, plain, layout).train()
    update, images = sgd(net, module), images.to(memory_format=layout)

    def step() -> None:
        update.zero_grad()
        plain.loss(module(images), labels).backward()
        update.step()

    return step


def seconds(steps: list[Callable[[], object]], rounds: int, clock: Callable[[], float]) -> list[list[float]]:
    """The times of each step, the steps taking turns; one turn before to warm up."""
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(rounds + 1):
        for step, own in zip(steps, times, strict=True):
            started = clock()
            step()
            if turn:
                own.append(clock() - started)
    return times


def measure(name: str, threads: int, rounds: int, clock: Callable[[], float]) -> str:
    plain = PLAIN[name]
    torch.set_num_threads(threads)
    images, labels = torch.randn(plain.batch, *plain.image), torch.randint(0, plain.classes, (plain.batch,))
    net = Net.for_file(prototxt(name), schema.TRAIN)
    steps = [plain_step(net, plain, images, labels, layout) for layout in LAYOUTS]
    times = seconds([caffe_step(net, images, labels), *steps], rounds, clock)
    ours, default, last = (statistics.median(own) for own in times)
    cells = [f"{1e3 * median:8.1f} ms" for median in (ours, default, last)]
    label = f"{name} ({plain.batch})"
    return " | ".join(
        [f"{label:<19}", f"{threads}", *cells, f"{ours / default:.2f}", f"{ours / min(default, last):.2f}"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", default=",".join(PLAIN), help=f"of {', '.join(PLAIN)}")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of each program")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    click.echo(" | ".join(["net (batch)", "threads", *COLUMNS, "of plain", "of the better layout"]))
    for name in options.nets.split(","):
        check_same(name, PLAIN[name])
        for threads in map(int, options.threads.split(",")):
            click.echo(measure(name, threads, options.rounds, CLOCKS[options.clock]))


if __name__ == "__main__":
    main()
