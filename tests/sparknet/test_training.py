"""The algorithm against plain loops written out here (claims C1, C2, C3 and C7 of docs/algorithms)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn

from sparknet.data import Examples, contiguous, sampler
from sparknet.data.dataset import Batch
from sparknet.errors import DataError, UsageError, WorkersLost
from sparknet.local import LocalWorkers
from sparknet.outer import Average, DiLoCo, Outer, SlowMo
from sparknet.replica import TorchReplica
from sparknet.training import Momentum, Round, Settings, train
from sparknet.weights import Vector
from sparknet.worker import Recipe
from tests.sparknet.small import digest, momentum_sgd, pictures, small_net, small_recipe, small_replica


def shards_of(examples: Examples, workers: int) -> list[Examples]:
    return [examples[part] for part in contiguous(len(examples), workers)]


def run(recipe: Recipe, workers: int, settings: Settings, outer: Outer | None = None) -> list[Round]:
    examples = pictures()
    with LocalWorkers(recipe, shards_of(examples, workers), pictures(70, seed=1)) as local:
        return list(train(local, settings, outer))


def serial_weights(
    steps: int,
    seed: int,
    order: list[np.ndarray] | None = None,
    make_net: Callable[[], nn.Module] = small_net,
) -> Vector:
    """``steps`` of torch's own SGD, without any of the project's training code."""
    examples = pictures()
    torch.manual_seed(seed)
    net = make_net()
    optimizer = momentum_sgd(net.parameters())
    batches = order or list(sampler("epoch", records=len(examples), batch_size=10, seed=seed).batches(steps))
    for indices in batches:
        data = torch.from_numpy(examples.images[indices]).float() * (1 / 256)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(data), torch.from_numpy(examples.labels[indices])).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in net.parameters()]).numpy()


@pytest.mark.parametrize("tau", [1, 5, 10, 50])
def test_one_worker_is_the_serial_loop_bit_for_bit(tau: int) -> None:
    """Claim C1."""
    done = run(small_recipe(), 1, Settings(rounds=100 // tau, tau=tau))
    assert digest(done[-1].weights) == digest(serial_weights(100, seed=3))


def big_batch_distance(
    recipe: Recipe, momentum: Momentum = "keep", make_net: Callable[[], nn.Module] = small_net
) -> float:
    """How far 4 workers with batch 5 at tau 1 end from one loop over their joined batches, relative."""
    examples, workers, steps = pictures(), 4, 200
    done = run(recipe, workers, Settings(rounds=steps, tau=1, momentum=momentum))
    each = [
        [
            part.start + indices
            for indices in sampler("epoch", records=60, batch_size=5, seed=3, shard=k).batches(steps)
        ]
        for k, part in enumerate(contiguous(len(examples), workers))
    ]
    joined = [np.concatenate(indices) for indices in zip(*each, strict=True)]
    serial = serial_weights(steps, 3, joined, make_net)
    parameters = done[-1].weights[: serial.size]  # running statistics lie behind them
    return float(np.abs(parameters - serial).max() / np.abs(serial).max())


def clipping_replica() -> TorchReplica:
    class Clipped(torch.optim.SGD):
        def step(self, closure=None):  # type: ignore[no-untyped-def]
            nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 0.05)
            return super().step(closure)

    return TorchReplica(small_net(), lambda p: Clipped(p, lr=0.1, momentum=0.9, weight_decay=0.004))


def adam_replica() -> TorchReplica:
    return TorchReplica(small_net(), lambda p: torch.optim.Adam(p, lr=0.01))


def batch_normed_net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 3))


def test_one_step_per_round_is_one_big_batch() -> None:
    """Claim C2, and below it what it does not hold for, so that the test could fail."""
    assert big_batch_distance(small_recipe(5)) < 1e-6


@pytest.mark.parametrize("replica", [clipping_replica, adam_replica])
def test_what_is_not_linear_in_the_gradient_is_not_one_big_batch(replica: object) -> None:
    assert big_batch_distance(small_recipe(5, replica=replica)) > 1e-3


def test_statistics_of_a_worker_s_own_batch_are_not_those_of_one_big_batch() -> None:
    recipe = small_recipe(5, replica=lambda: TorchReplica(batch_normed_net(), momentum_sgd))
    assert big_batch_distance(recipe, make_net=batch_normed_net) > 1e-3


def test_forgetting_the_momentum_is_not_one_big_batch() -> None:
    assert big_batch_distance(small_recipe(5), "reset") > 1e-3


@pytest.mark.parametrize("outer", [SlowMo(step_size=1, momentum=0), DiLoCo(lr=1, momentum=0)])
def test_outer_optimisers_without_extras_are_averaging_bit_for_bit(outer: Outer) -> None:
    settings = Settings(rounds=12, tau=5)
    assert digest(run(small_recipe(), 3, settings, outer)[-1].weights) == digest(
        run(small_recipe(), 3, settings, Average())[-1].weights
    )


@pytest.mark.parametrize("outer", [SlowMo(), DiLoCo()])
def test_outer_momentum_changes_the_weights(outer: Outer) -> None:
    settings = Settings(rounds=3, tau=5)
    plain = run(small_recipe(), 3, settings)[-1].weights
    assert not np.array_equal(run(small_recipe(), 3, settings, outer)[-1].weights, plain)


def test_training_learns_and_says_so() -> None:
    done = run(small_recipe(), 3, Settings(rounds=30, tau=10, test_every=10))
    assert [r.number for r in done if r.scores] == [10, 20, 30]
    assert done[-1].loss < done[0].loss / 2
    assert done[-1].accuracy is not None
    assert done[-1].accuracy > 0.8
    assert (done[0].steps, done[0].images, done[0].members) == (30, 300, (0, 1, 2))
    assert done[0].seconds >= done[0].compute_seconds
    assert done[0].exchange_seconds == pytest.approx(done[0].seconds - done[0].compute_seconds)


def test_scores_count_every_record_once_and_the_short_batch_too() -> None:
    examples = pictures(70, seed=1)
    with LocalWorkers(small_recipe(test_batch_size=32), [pictures()], examples) as local:
        weights = local.initial_weights()
        scores = local.test(weights)
    torch.manual_seed(3)
    output = small_net()(torch.from_numpy(examples.images).float() / 256).detach()
    labels = torch.from_numpy(examples.labels)
    assert scores.records == 70
    assert scores.means["accuracy"] == pytest.approx(float((output.argmax(1) == labels).float().mean()))
    assert scores.means["loss"] == pytest.approx(float(nn.functional.cross_entropy(output, labels)), rel=1e-6)


class Clock:
    """The worker's clock, which only steps of SGD advance."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Slow(TorchReplica):
    """Each step takes ``pause`` seconds."""

    pause = 0.0
    clock = Clock()

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        self.clock.now += self.pause
        return super().step(batches)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("sparknet.worker.time", made)
    monkeypatch.setattr(Slow, "clock", made)
    return made


def with_pauses(settings: Settings, *pauses: float) -> tuple[Round, list[Vector]]:
    """A round of workers whose steps take so long, and what each of them made of the weights."""
    recipe = small_recipe(replica=lambda: Slow(small_net(), momentum_sgd))
    with LocalWorkers(recipe, shards_of(pictures(), len(pauses))) as local:
        for worker, pause in zip(local.workers, pauses, strict=True):
            worker.replica.pause = pause  # type: ignore[attr-defined]
        done = next(train(local, settings))
        return done, [worker.vector.copy() for worker in local.workers]


def test_a_time_cap_stops_the_straggler_after_one_more_step_at_most(clock: Clock) -> None:
    """Claim C7: one of four workers is four times as slow; without the cap all wait for it."""
    pauses = (0.25, 0.25, 0.25, 1.0)
    uncapped, _ = with_pauses(Settings(rounds=1, tau=8), *pauses)
    assert [report.seconds for report in uncapped.reports] == [2.0, 2.0, 2.0, 8.0]
    assert (uncapped.compute_seconds, uncapped.wait_seconds) == (8.0, 4.5)
    capped, _ = with_pauses(Settings(rounds=1, tau=8, time_cap_seconds=2.5), *pauses)
    assert [report.steps for report in capped.reports] == [8, 8, 8, 3]
    assert [report.seconds for report in capped.reports] == [2.0, 2.0, 2.0, 3.0]
    assert capped.compute_seconds <= 2.5 + 1.0


def test_a_worker_that_stopped_early_counts_by_its_steps(clock: Clock) -> None:
    done, vectors = with_pauses(Settings(rounds=1, tau=8, time_cap_seconds=4.0), 0.25, 4.0)
    assert [report.steps for report in done.reports] == [8, 1]
    expected = (8 * vectors[0].astype(np.float64) + vectors[1]) / 9
    assert np.array_equal(done.weights, expected.astype(np.float32))


def test_an_empty_shard_takes_no_part_and_tiny_ones_wrap_around() -> None:
    shards = [pictures(40), pictures(0), pictures(3, seed=4)]
    with LocalWorkers(small_recipe(), shards) as local:
        done = list(train(local, Settings(rounds=4, tau=3)))
    assert done[-1].members == (0, 2)


def test_workers_without_any_record_are_refused() -> None:
    with pytest.raises(WorkersLost, match="every shard is empty"):
        LocalWorkers(small_recipe(), [pictures(0)])


def test_testing_without_a_test_set_is_refused() -> None:
    with LocalWorkers(small_recipe(), [pictures()]) as local, pytest.raises(DataError, match="no test set"):
        list(train(local, Settings(rounds=1, test_every=1)))


def test_the_weights_of_a_round_cannot_be_changed() -> None:
    weights = run(small_recipe(), 1, Settings(rounds=1, tau=1))[0].weights
    with pytest.raises(ValueError, match="read-only"):
        weights[0] = 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"rounds": 1, "tau": 0}, "at least 1 step"),
        ({"rounds": 1, "time_cap_seconds": 0}, "time cap"),
        ({"rounds": 1, "test_every": -1}, "test_every is -1"),
        ({"rounds": 1, "momentum": "forget"}, "keep, average or reset"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Settings(**options)  # type: ignore[arg-type]


def test_random_numbers_do_not_depend_on_where_rounds_end() -> None:
    recipe = small_recipe(
        replica=lambda: TorchReplica(nn.Sequential(nn.Dropout(0.5), *small_net()), momentum_sgd)
    )
    digests = {digest(run(recipe, 1, Settings(rounds=20 // tau, tau=tau))[-1].weights) for tau in (1, 4, 10)}
    assert len(digests) == 1


def test_small_replicas_are_born_alike() -> None:
    with LocalWorkers(small_recipe(replica=small_replica), shards_of(pictures(), 3)) as local:
        assert len({digest(worker.vector) for worker in local.workers}) == 1
