"""The nets of ``apps/models`` written by hand in torch: what the Caffe path is measured against.

Modules are made in the order of the layers in the prototxt, so the parameters come in Caffe's order and have
Caffe's shapes. In training a net returns one output per loss, the one that counts fully last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class PlainNet:
    """How to build a net, the images it is timed with, and the weights of its losses."""

    build: Callable[[], nn.Module]
    batch: int
    image: tuple[int, int, int]
    classes: int
    loss_weights: tuple[float, ...] = (1.0,)

    def loss(self, outputs: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """The weighted sum of the cross-entropies, a tensor of no axes."""
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        terms = [nn.functional.cross_entropy(output, labels) for output in outputs]
        return torch.stack([w * t for w, t in zip(self.loss_weights, terms, strict=True)]).sum()


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), _relu(), nn.Linear(500, 10),
    )  # fmt: skip


def cifar10_quick() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2), _max_pool(), _relu(),
        nn.Conv2d(32, 32, 5, padding=2), _relu(), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(32, 64, 5, padding=2), _relu(), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(), nn.Linear(1024, 64), nn.Linear(64, 10),
    )  # fmt: skip


def caffenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4), _relu(), _max_pool(), _lrn(),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), _relu(), _max_pool(), _lrn(),
        nn.Conv2d(256, 384, 3, padding=1), _relu(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), _relu(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), _relu(), _max_pool(),
        nn.Flatten(), nn.Linear(9216, 4096), _relu(), nn.Dropout(0.5),
        nn.Linear(4096, 4096), _relu(), nn.Dropout(0.5), nn.Linear(4096, 1000),
    )  # fmt: skip


class Inception(nn.Module):
    """Four branches over one input, joined along the channels."""

    def __init__(self, inputs: int, a: int, b0: int, b: int, c0: int, c: int, d: int) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(inputs, a, 1), _relu())
        self.b = nn.Sequential(
            nn.Conv2d(inputs, b0, 1), _relu(), nn.Conv2d(b0, b, 3, padding=1), _relu()
        )  # fmt: skip
        self.c = nn.Sequential(
            nn.Conv2d(inputs, c0, 1), _relu(), nn.Conv2d(c0, c, 5, padding=2), _relu()
        )  # fmt: skip
        self.d = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), nn.Conv2d(inputs, d, 1), _relu())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), self.b(x), self.c(x), self.d(x)], 1)


class GoogLeNet(nn.Module):
    """With both auxiliary classifiers in training, without them otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.to_4a = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3), _relu(), _max_pool(), _lrn(),
            nn.Conv2d(64, 64, 1), _relu(), nn.Conv2d(64, 192, 3, padding=1), _relu(), _lrn(), _max_pool(),
            Inception(192, 64, 96, 128, 16, 32, 32),
            Inception(256, 128, 128, 192, 32, 96, 64), _max_pool(),
            Inception(480, 192, 96, 208, 16, 48, 64),
        )  # fmt: skip
        self.first = _auxiliary(512)
        self.to_4d = nn.Sequential(
            Inception(512, 160, 112, 224, 24, 64, 64),
            Inception(512, 128, 128, 256, 24, 64, 64),
            Inception(512, 112, 144, 288, 32, 64, 64),
        )
        self.second = _auxiliary(528)
        self.to_end = nn.Sequential(
            Inception(528, 256, 160, 320, 32, 128, 128), _max_pool(),
            Inception(832, 256, 160, 320, 32, 128, 128),
            Inception(832, 384, 192, 384, 48, 128, 128),
            nn.AvgPool2d(7, 1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(1024, 1000),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        a = self.to_4a(x)
        d = self.to_4d(a)
        end: Tensor = self.to_end(d)
        return (self.first(a), self.second(d), end) if self.training else end


def _auxiliary(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.AvgPool2d(5, 3), nn.Conv2d(channels, 128, 1), _relu(),
        nn.Flatten(), nn.Linear(2048, 1024), _relu(), nn.Dropout(0.7), nn.Linear(1024, 1000),
    )  # fmt: skip


def _relu() -> nn.Module:
    return nn.ReLU(inplace=True)


def _max_pool() -> nn.Module:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def _lrn() -> nn.Module:
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)


PLAIN = {
    "lenet": PlainNet(build=lenet, batch=64, image=(1, 28, 28), classes=10),
    "cifar10_quick": PlainNet(build=cifar10_quick, batch=100, image=(3, 32, 32), classes=10),
    "caffenet": PlainNet(build=caffenet, batch=32, image=(3, 227, 227), classes=1000),
    "googlenet": PlainNet(
        build=GoogLeNet, batch=16, image=(3, 224, 224), classes=1000, loss_weights=(0.3, 0.3, 1.0)
    ),
}
"""By the name of the prototxt in ``apps/models``."""
