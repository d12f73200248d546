"""The update rules on bare vectors, against Caffe's formulas for one element at a time in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch

from sparknet.caffe.solver import update
from sparknet.caffe.solver.rules import RULES, rule_named
from sparknet.caffe.solver.update import Span, Updater, blocks, merged
from sparknet.errors import ModelError

SIZE = 12


@dataclass(frozen=True, kw_only=True)
class Settings:
    momentum: float = 0.0
    momentum2: float = 0.99
    rms_decay: float = 0.9
    delta: float = 1e-3
    weight_decay: float = 0.0
    regularization_type: str = "L2"
    clip_gradients: float = -1.0
    iter_size: int = 1


def scalar_update(name: str, s: Settings, lr: float, t: int, g: float, h: list[float]) -> float:
    """What Caffe subtracts from one weight; moves ``h`` on."""
    if name == "SGD":
        h[0] = s.momentum * h[0] + lr * g
        return h[0]
    if name == "Nesterov":
        last, h[0] = h[0], s.momentum * h[0] + lr * g
        return (1 + s.momentum) * h[0] - s.momentum * last
    if name == "AdaGrad":
        h[0] += g * g
        return lr * g / (math.sqrt(h[0]) + s.delta)
    if name == "RMSProp":
        h[0] = s.rms_decay * h[0] + (1 - s.rms_decay) * g * g
        return lr * g / (math.sqrt(h[0]) + s.delta)
    if name == "AdaDelta":
        h[0] = s.momentum * h[0] + (1 - s.momentum) * g * g
        u = g * math.sqrt((s.delta + h[1]) / (s.delta + h[0]))
        h[1] = s.momentum * h[1] + (1 - s.momentum) * u * u
        return lr * u
    assert name == "Adam"
    h[0] = s.momentum * h[0] + (1 - s.momentum) * g
    h[1] = s.momentum2 * h[1] + (1 - s.momentum2) * g * g
    correction = math.sqrt(1 - s.momentum2**t) / (1 - s.momentum**t)
    return lr * correction * h[0] / (math.sqrt(h[1]) + s.delta)


def vectors(seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SIZE, generator=generator), torch.randn(SIZE, generator=generator)


def updater_of(name: str, settings: Settings, *spans: Span) -> Updater:
    weights, diffs = vectors()
    return Updater(
        RULES[name], settings, weights=weights, diffs=diffs, spans=spans or [Span(start=0, stop=SIZE)]
    )


@pytest.mark.parametrize("regularization", ["L1", "L2"])
@pytest.mark.parametrize("name", sorted(RULES))
def test_a_rule_follows_caffes_formula(
    name: str, regularization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "BLOCK", 5)
    momentum = 0.9 if RULES[name].takes_momentum else 0.0
    settings = Settings(momentum=momentum, weight_decay=0.1, regularization_type=regularization)
    spans = (
        Span(start=0, stop=7),
        Span(start=7, stop=9, lr_mult=2, decay_mult=0),
        Span(start=9, stop=SIZE, lr_mult=0),
    )
    applied = updater_of(name, settings, *spans)
    expected = applied.weights.double().tolist()
    history = [[0.0, 0.0] for _ in range(SIZE)]
    for iteration in range(4):
        gradient = vectors(seed=iteration)[1]
        applied.diffs.copy_(gradient)
        lr = 0.1 / (iteration + 1)
        applied.apply(lr, iteration)
        for span in spans:
            for i in range(span.start, span.stop):
                w = expected[i]
                pull = w if regularization == "L2" else math.copysign(1, w)
                g = float(gradient[i]) + 0.1 * span.decay_mult * pull
                expected[i] -= scalar_update(name, settings, lr * span.lr_mult, iteration + 1, g, history[i])
    torch.testing.assert_close(applied.weights, torch.tensor(expected), atol=1e-6, rtol=0)
    for kept, column in zip(applied.history, zip(*history, strict=True), strict=False):
        torch.testing.assert_close(kept, torch.tensor(column), atol=1e-6, rtol=1e-6)


def test_the_gradient_is_clipped_before_it_is_divided_and_decayed() -> None:
    settings = Settings(clip_gradients=0.5, iter_size=4, weight_decay=0.1)
    applied = updater_of("SGD", settings)
    before, gradient = applied.weights.clone(), applied.diffs.clone()
    applied.apply(1.0, 0)
    clipped = gradient * 0.5 / gradient.norm()
    torch.testing.assert_close(applied.weights, before - (clipped / 4 + 0.1 * before))


def test_a_gradient_within_the_limit_is_left_alone() -> None:
    applied = updater_of("SGD", Settings(clip_gradients=100.0))
    before, gradient = applied.weights.clone(), applied.diffs.clone()
    applied.apply(0.5, 0)
    torch.testing.assert_close(applied.weights, before - 0.5 * gradient)


def test_l1_leaves_a_weight_of_nought_where_it_is() -> None:
    applied = updater_of("SGD", Settings(weight_decay=1.0, regularization_type="L1"))
    applied.weights.zero_()
    applied.diffs.zero_()
    applied.apply(1.0, 0)
    assert not applied.weights.any()


def test_the_diffs_hold_what_was_subtracted() -> None:
    applied = updater_of("Adam", Settings(momentum=0.9))
    before = applied.weights.clone()
    applied.apply(0.1, 0)
    torch.testing.assert_close(before - applied.diffs, applied.weights, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", sorted(RULES))
def test_blocks_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(momentum=0.5 if RULES[name].takes_momentum else 0.0)
    whole = updater_of(name, settings)
    monkeypatch.setattr(update, "BLOCK", 1)
    cut = updater_of(name, settings)
    for one in (whole, cut):
        one.apply(0.1, 0)
    assert torch.equal(whole.weights, cut.weights)


@pytest.mark.parametrize("name", sorted(RULES))
def test_lists_of_spans_as_on_a_gpu_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(momentum=0.5 if RULES[name].takes_momentum else 0.0, weight_decay=0.1)
    spans = [Span(start=i, stop=i + 3, lr_mult=1.0 + i % 2) for i in range(0, SIZE, 3)]
    blockwise = updater_of(name, settings, *spans)
    monkeypatch.setattr(Updater, "_cut", Updater._in_lists)
    in_lists = updater_of(name, settings, *spans)
    assert len(in_lists._parts) == 2
    for one in (blockwise, in_lists):
        one.apply(0.1, 0)
        one.apply(0.1, 1)
    torch.testing.assert_close(blockwise.weights, in_lists.weights)


def test_an_updater_goes_on_in_other_vectors() -> None:
    moved, stayed = (updater_of("SGD", Settings(momentum=0.9)) for _ in range(2))
    for one in (moved, stayed):
        one.apply(0.1, 0)
    moved.rebind(moved.weights.clone(), moved.diffs.clone())
    for one in (moved, stayed):
        one.diffs.fill_(0.25)
        one.apply(0.1, 1)
    assert torch.equal(moved.weights, stayed.weights)


def test_neighbours_with_equal_multipliers_are_one_span() -> None:
    spans = [
        Span(start=4, stop=6, lr_mult=2.0),
        Span(start=0, stop=3),
        Span(start=3, stop=4),
        Span(start=6, stop=6),
    ]
    assert merged(spans) == [Span(start=0, stop=4), replace(spans[0])]


def test_a_span_is_cut_without_a_gap() -> None:
    assert [(b.start, b.stop) for b in blocks(Span(start=2, stop=9), 3)] == [(2, 5), (5, 8), (8, 9)]


def test_the_old_enum_and_the_type_name_the_same_rules() -> None:
    assert [rule.enum for rule in RULES.values()] == list(range(6))


@pytest.mark.parametrize("name", ["AdaGrad", "RMSProp"])
def test_a_rule_without_momentum_refuses_one(name: str) -> None:
    with pytest.raises(ModelError, match="momentum cannot be used"):
        rule_named(name, momentum=0.9)


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match="the types are SGD, Nesterov"):
        rule_named("sgd")


def test_an_unknown_regularization_is_refused() -> None:
    with pytest.raises(ModelError, match="L1 or L2"):
        updater_of("SGD", Settings(regularization_type="l2"))
