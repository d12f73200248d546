"""The six update rules of Caffe's solvers, one row each in ``RULES``.

A rule turns the regularised gradient ``g`` into the value to be subtracted from the weights, in place, and
moves its history ``h`` on. The learning rate is inside Caffe's velocity, so that SGD with momentum under a
changing rate is not ``torch.optim.SGD``; Adam's delta is not bias-corrected, so that Adam is not
``torch.optim.Adam``.

A rule works on lists of equally many tensors: on a GPU one kernel serves the whole list; on a CPU the lists
hold one block that stays in the cache while every line of the rule passes over it.

Source: ``src/caffe/solvers/*_solver.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sparknet.errors import ModelError

Tensors = list[torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The numbers one update is made with.

    ``lr`` is the rate of the iteration times the blob's ``lr_mult``.
    """

    lr: float
    momentum: float = 0.0
    momentum2: float = 0.999
    rms_decay: float = 0.99
    delta: float = 1e-8
    iteration: int = 0


@dataclass(frozen=True, kw_only=True)
class Rule:
    """``histories`` float32 vectors as long as the weights, all zero at first, and what to do with them."""

    name: str
    enum: int  # the value of the old `solver_type`
    histories: int
    takes_momentum: bool
    update: Callable[[Moment, Tensors, list[Tensors]], None]


def _sgd(now: Moment, g: Tensors, history: list[Tensors]) -> None:
    (h,) = history
    torch._foreach_mul_(h, now.momentum)
    torch._foreach_add_(h, g, alpha=now.lr)
    torch._foreach_copy_(g, h)


def _nesterov(now: Moment, g: Tensors, history: list[Tensors]) -> None:
    (h,) = history
    torch._foreach_mul_(h, now.momentum)
    before = torch._foreach_neg(h)
    torch._foreach_add_(h, g, alpha=now.lr)
    torch._foreach_copy_(g, before)
    torch._foreach_add_(g, h, alpha=1 + now.momentum)


def _adagrad(now: Moment, g: Tensors, history: list[Tensors]) -> None:
    (h,) = history
    torch._foreach_addcmul_(h, g, g)
    torch._foreach_div_(g, _root(h, now.delta))
    torch._foreach_mul_(g, now.lr)


def _rmsprop(now: Moment, g: Tensors, history: list[Tensors]) -> None:
    (h,) = history
    torch._foreach_mul_(h, now.rms_decay)
    torch._foreach_addcmul_(h, g, g, 1 - now.rms_decay)
    torch._foreach_div_(g, _root(h, now.delta))
    torch._foreach_mul_(g, now.lr)


def _adadelta(now: Moment, g: Tensors, history: list[Tensors]) -> None:
    gradients, updates = history
    rho = now.momentum
    torch._foreach_mul_(gradients, rho)
    torch._foreach_addcmul_(gradients, g, g, 1 - rho)
    ratio = torch._foreach_add(updates, now.delta)
    torch._foreach_div_(ratio, torch._foreach_add(gradients, now.delta))
    torch._foreach_sqrt_(ratio)
    torch._foreach_mul_(g, ratio)
    torch._foreach_mul_(updates, rho)
    torch._foreach_addcmul_(updates, g, g, 1 - rho)  # before the rate: Caffe's order
    torch._foreach_mul_(g, now.lr)


def _adam(now: Moment, g: Tensors, history: list[Tensors]) -> None:
    first, second = history
    t = now.iteration + 1
    torch._foreach_mul_(first, now.momentum)
    torch._foreach_add_(first, g, alpha=1 - now.momentum)
    torch._foreach_mul_(second, now.momentum2)
    torch._foreach_addcmul_(second, g, g, 1 - now.momentum2)
    correction = math.sqrt(1 - now.momentum2**t) / (1 - now.momentum**t)
    torch._foreach_copy_(g, first)
    torch._foreach_div_(g, _root(second, now.delta))
    torch._foreach_mul_(g, now.lr * correction)


def _root(h: Tensors, delta: float) -> tuple[torch.Tensor, ...]:
    root = torch._foreach_sqrt(h)
    torch._foreach_add_(root, delta)
    return root


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(name="SGD", enum=0, histories=1, takes_momentum=True, update=_sgd),
        Rule(name="Nesterov", enum=1, histories=1, takes_momentum=True, update=_nesterov),
        Rule(name="AdaGrad", enum=2, histories=1, takes_momentum=False, update=_adagrad),
        Rule(name="RMSProp", enum=3, histories=1, takes_momentum=False, update=_rmsprop),
        Rule(name="AdaDelta", enum=4, histories=2, takes_momentum=True, update=_adadelta),
        Rule(name="Adam", enum=5, histories=2, takes_momentum=True, update=_adam),
    )
}


def rule_named(
    name: str, *, momentum: float = 0.0, momentum2: float = 0.999, rms_decay: float = 0.99
) -> Rule:
    """The rule of a solver's ``type`` (upper and lower case matter, as in Caffe).

    Raises ModelError for a type that is not known, for AdaGrad or RMSProp with a momentum, and for decays
    that RMSProp and Adam cannot work with.
    """
    rule = RULES.get(name)
    if rule is None:
        raise ModelError(f'unknown solver type "{name}"; the types are {", ".join(RULES)}')
    if not 0 <= rms_decay < 1 and name == "RMSProp":
        raise ModelError(f"rms_decay lies between 0 and 1, and is not 1: not {rms_decay:g}")
    if name == "Adam" and not (-1 < momentum < 1 and 0 <= momentum2 < 1):
        raise ModelError(
            f"Adam needs a momentum between -1 and 1 and a momentum2 from 0 to 1, both not 1 (it divides by "
            f"1 less their powers): not {momentum:g} and {momentum2:g}"
        )
    if momentum and not rule.takes_momentum:
        raise ModelError(f"momentum cannot be used with {name}: remove `momentum: {momentum:g}`")
    return rule
