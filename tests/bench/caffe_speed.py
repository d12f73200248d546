"""What a training step of the Caffe path costs beside the same net written by hand in torch.

    ./run bench caffe_speed
    python -m tests.bench.caffe_speed [--nets lenet,cifar10_quick] [--threads 1,2] [--rounds 9]

A step is forward, backward and update (SGD with momentum and decay, Caffe's multipliers of rate and decay).
Three programs take turns, one step each: the solver of this package; plain torch in its default layout; plain
torch with channels last. The plain ones run `torch.optim.SGD(foreach=True)`, and before they are timed all
three have made the same loss and the same gradients of the same weights. Times are medians; the last columns
are what the Caffe path takes of the default layout's time and of the better layout's, by the wall clock and
in CPU seconds: medians over the turns of the ratios within one. Other programs on the machine disturb the
wall clock, and much less the CPU seconds; in those of two threads waiting for the other one counts, unless
OMP_WAIT_POLICY=passive is in the environment.
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
CLOCKS = (time.perf_counter, time.process_time)  # wall, CPU
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


def seconds(steps: list[Callable[[], object]], rounds: int) -> list[list[list[float]]]:
    """The times of each step by each clock, the steps taking turns; one turn before to warm up."""
    times: list[list[list[float]]] = [[[] for _ in steps] for _ in CLOCKS]
    for turn in range(rounds + 1):
        for i, step in enumerate(steps):
            started = [clock() for clock in CLOCKS]
            step()
            for clock, begin, own in zip(CLOCKS, started, times, strict=True):
                if turn:
                    own[i].append(clock() - begin)
    return times


def share(ours: list[float], other: list[float]) -> float:
    """What ours takes of the other's time, turn by turn: the median."""
    return statistics.median(mine / theirs for mine, theirs in zip(ours, other, strict=True))


def measure(name: str, threads: int, rounds: int) -> str:
    plain = PLAIN[name]
    torch.set_num_threads(threads)
    images, labels = torch.randn(plain.batch, *plain.image), torch.randint(0, plain.classes, (plain.batch,))
    net = Net.for_file(prototxt(name), schema.TRAIN)
    steps = [plain_step(net, plain, images, labels, layout) for layout in LAYOUTS]
    wall, cpu = seconds([caffe_step(net, images, labels), *steps], rounds)
    cells = [f"{1e3 * statistics.median(own):8.1f} ms" for own in wall]
    shares = [f"{share(ours, default):.2f}  {share(ours, better(default, last)):.2f}"
              for ours, default, last in (wall, cpu)]  # fmt: skip
    return " | ".join([f"{name + f' ({plain.batch})':<19}", f"{threads}", *cells, *shares])


def better(default: list[float], last: list[float]) -> list[float]:
    """The times of the layout with the smaller median."""
    return min(default, last, key=statistics.median)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", default=",".join(PLAIN), help=f"of {', '.join(PLAIN)}")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of each program")
    options = parser.parse_args()
    click.echo(" | ".join(["net (batch)", "threads", *COLUMNS, "of plain, of the better: wall", "CPU"]))
    for name in options.nets.split(","):
        check_same(name, PLAIN[name])
        for threads in map(int, options.threads.split(",")):
            click.echo(measure(name, threads, options.rounds))


if __name__ == "__main__":
    main()
