"""Outer optimisers against torch.optim and the papers, means against float64, schedules against sums."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from sparknet.errors import UsageError
from sparknet.outer import (
    Average,
    DiLoCo,
    Outer,
    Repeatable,
    SlowMo,
    from_settings,
    post_local,
    quadratic,
    settings_of,
)
from sparknet.weights import mean_of


def draws(count: int, size: int = 100_000) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(size).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("replicas", [1, 2, 3, 5, 7, 11])
def test_the_mean_of_equal_vectors_is_that_vector(replicas: int) -> None:
    vector = draws(1)[0]
    assert np.array_equal(mean_of([vector] * replicas, [10] * replicas), vector)


def test_a_mean_is_the_rounded_exact_one() -> None:
    vectors = draws(5)
    exact = np.average(np.asarray(vectors, np.float64), axis=0, weights=[3, 3, 1, 2, 3])
    assert np.allclose(mean_of(vectors, [3, 3, 1, 2, 3]), exact, rtol=6e-8, atol=1e-12)


OUTERS: dict[str, Callable[[], Outer]] = {
    "average": Average,
    "SlowMo(1, 0)": lambda: SlowMo(1.0, 0.0),
    "DiLoCo(1, 0)": lambda: DiLoCo(1.0, 0.0),
}


@pytest.mark.parametrize("name", OUTERS)
def test_every_outer_optimiser_without_extras_gives_the_mean_bit_for_bit(name: str) -> None:
    outer, weights = OUTERS[name](), draws(1)[0]
    for mean, lr in zip(draws(5), [0.1, 0.1, 0.01, 1e-3, 7.0], strict=True):
        weights = outer.step(weights, mean, lr)
        assert np.array_equal(weights, mean)


@pytest.mark.parametrize("replicas", [2, 3, 5])
def test_equal_replicas_go_nowhere_under_any_outer_optimiser(replicas: int) -> None:
    """From weights w, K workers that all end at w: D is nothing, and so is every step made of it."""
    weights = draws(1)[0]
    for outer in (Average(), SlowMo(), SlowMo(0.8, 0.6), DiLoCo()):
        mean = mean_of([weights] * replicas, [7] * replicas)
        assert np.array_equal(outer.step(weights, mean, 0.1), weights)


def test_two_equal_shares_are_averaged_as_any_others_are() -> None:
    """The short way for two is the long one's rounding: against exact halves of exact sums."""
    first, second = draws(2)
    exact = ((first.astype(np.float64) + second) / 2).astype(np.float32)
    assert np.array_equal(mean_of([first, second], [10, 10]), exact)
    out = np.empty_like(first)
    assert mean_of([first, second], [3, 3], out=out) is out
    assert np.array_equal(out, exact)


def test_diloco_is_torch_sgd_with_nesterov_momentum() -> None:
    parameter = torch.zeros(1000, requires_grad=True)
    reference = torch.optim.SGD([parameter], lr=0.7, momentum=0.9, nesterov=True)
    outer, weights = DiLoCo(), np.zeros(1000, np.float32)
    for mean in draws(6, 1000):
        parameter.grad = torch.from_numpy(weights - mean)
        weights = outer.step(weights, mean, 0.1)
        reference.step()
        assert np.allclose(weights, parameter.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_slow_momentum_follows_its_paper_also_when_the_rate_changes() -> None:
    outer, weights, velocity = SlowMo(0.8, 0.6), np.zeros(1000, np.float32), np.zeros(1000)
    expected = weights.astype(np.float64)
    for mean, lr in zip(draws(6, 1000), [0.1, 0.1, 0.1, 0.01, 0.01, 0.001], strict=True):
        velocity = 0.6 * velocity + (expected - mean) / lr
        expected = expected - 0.8 * lr * velocity
        weights = outer.step(weights, mean, lr)
        assert np.allclose(weights, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [SlowMo, DiLoCo])
def test_an_outer_optimiser_goes_on_from_its_state(make: type[SlowMo] | type[DiLoCo]) -> None:
    means = draws(4, 50)
    straight, first, second = make(), make(), make()
    weights = np.zeros(50, np.float32)
    for mean in means:
        weights = straight.step(weights, mean, 0.1)
    resumed = np.zeros(50, np.float32)
    for mean in means[:2]:
        resumed = first.step(resumed, mean, 0.1)
    second.resume(first.state)
    for mean in means[2:]:
        resumed = second.step(resumed, mean, 0.1)
    assert np.array_equal(weights, resumed)


def test_slow_momentum_refuses_a_learning_rate_of_zero() -> None:
    with pytest.raises(UsageError, match="divides by the learning rate"):
        SlowMo().step(*draws(2), 0.0)


@pytest.mark.parametrize("options", [{"momentum": 1.0}, {"momentum": -0.1}])
def test_a_momentum_that_cannot_be_is_refused(options: dict[str, float]) -> None:
    for make in (SlowMo, DiLoCo):
        with pytest.raises(UsageError, match="momentum"):
            make(**options)


def test_post_local_lengthens_rounds_when_the_rate_first_falls() -> None:
    schedule = post_local(16, initial_lr=0.1)
    assert [schedule(1, lr) for lr in (None, 0.1, 0.01, 0.001)] == [1, 1, 16, 16]


def test_the_quadratic_rule_grows_rounds_as_the_rate_falls() -> None:
    schedule = quadratic(4, a=0.5)
    assert [schedule(1, lr) for lr in (None, 0.5, 0.1, 0.05)] == [4, 4, 25, 100]


@pytest.mark.parametrize("outer", [SlowMo(0.8, 0.3), DiLoCo(0.35, 0.7)], ids=["SlowMo", "DiLoCo"])
def test_one_made_from_the_settings_of_another_steps_alike(outer: Repeatable) -> None:
    other = from_settings(json.loads(json.dumps(settings_of(outer))))
    weights = draws(1)[0]
    for mean, lr in zip(draws(4), [0.1, 0.1, 0.03, 1 / 3], strict=True):
        assert np.array_equal(other.step(weights, mean, lr), outer.step(weights, mean, lr))


def test_an_optimiser_of_the_users_own_has_no_settings_and_cannot_be_made() -> None:
    class Mine(SlowMo):
        pass

    assert not settings_of(Mine())
    with pytest.raises(UsageError, match="no outer optimiser Adam: SlowMo, DiLoCo"):
        from_settings({"Adam": {}})
