"""Averages that arrive late: what the merge leaves alone, and training by it against a loop written out."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from sparknet.errors import UsageError
from sparknet.local import LocalWorkers
from sparknet.merge import Statistics
from sparknet.outer import Average, Outer, SlowMo
from sparknet.overlap import merge_late
from sparknet.replica import TorchReplica
from sparknet.training import RoundPlan, Settings, train
from sparknet.weights import Vector, mean_of
from tests.sparknet.distributed.fixtures import TEST, shards_of
from tests.sparknet.small import digest, momentum_sgd, small_recipe
from tests.sparknet.test_training import batch_normed_net, serial_weights

LENGTH = 70_000  # more than two blocks


def drawn(*seed: int) -> Vector:
    return np.random.default_rng(seed).normal(size=LENGTH).astype(np.float32)


def merged(vector: Vector, arrived: Vector, sent: Vector) -> Vector:
    out = vector.copy()
    merge_late(out, arrived, sent)
    return out


def test_the_merge_is_what_was_made_plus_the_correction_in_this_order() -> None:
    y, m, x = drawn(1), drawn(2), drawn(3)
    assert np.array_equal(merged(y, m, x), y + (m - x))
    assert not np.array_equal(merged(y, m, x), (y + m) - x)


def test_an_average_of_equal_workers_changes_no_bit_negative_zeros_included() -> None:
    y, x = drawn(1), drawn(2)
    y[:4], x[:4] = [0.0, -0.0, 1.0, -0.0], [0.0, 0.0, -0.0, -0.0]
    assert digest(merged(y, mean_of([x, x, x], [5, 5, 5]), x)) == digest(y)


def test_nothing_is_counted_twice_and_nothing_is_lost() -> None:
    """The workers' sum after the merge is the sum that was sent plus all progress made meanwhile."""
    sent = [drawn(k) for k in range(5)]
    progress = [0.01 * drawn(k, 1) for k in range(5)]
    mean = mean_of(sent, [1] * 5)
    after = [merged(x + p, mean, x) for x, p in zip(sent, progress, strict=True)]
    total = np.sum([np.float64(z) for z in after], axis=0)
    due = np.sum([np.float64(x) for x in sent] + [np.float64(p) for p in progress], axis=0)
    assert np.allclose(total, due, rtol=0, atol=1e-5)
    overwritten = np.float64(mean) * 5  # the rule that loses what was made meanwhile
    assert np.abs(overwritten - due).max() > 1e-2


def test_a_running_variance_does_not_become_negative() -> None:
    y, m, x = np.float32([2, 2, 2]), np.float32([1, 1, 1]), np.float32([5, 5, 2])
    merge_late(y, m, x, [Statistics(mean=slice(0, 1), variance=slice(1, 2))])
    assert y.tolist() == [-2, 0, 1]


def test_one_worker_that_overlaps_is_the_serial_loop_bit_for_bit() -> None:
    settings = Settings(rounds=20, tau=5, overlap=True, drain_every=7)
    with LocalWorkers(small_recipe(), shards_of(1)) as local:
        done = list(train(local, settings))
    assert digest(done[-1].weights) == digest(serial_weights(100, seed=3))


def written_out(workers: int, rounds: int, tau: int, drains: set[int], outer: Outer) -> Vector:
    """Overlapped rounds of plain vectors; the workers are only asked to take steps from where they are."""
    with LocalWorkers(small_recipe(), shards_of(workers)) as local:
        w = local.initial_weights()
        x: list[Vector] | None = None
        for number in range(1, rounds + 1):
            vectors = []
            for k, worker in enumerate(local.workers):
                if x is None:
                    lr = worker.train(w, RoundPlan(tau=tau)).lr
                else:
                    lr = worker.train(None, RoundPlan(tau=tau)).lr
                    worker.load(worker.bring() + (w - x[k]))
                vectors.append(worker.bring().copy())
            w = outer.step(w, mean_of(vectors, [1] * workers), lr)
            x = None if number in drains else vectors
        return w


@pytest.mark.parametrize("outer", [Average, SlowMo])
def test_overlapped_rounds_are_those_written_out(outer: type[Outer]) -> None:
    settings = Settings(rounds=9, tau=3, overlap=True, drain_every=4)
    with LocalWorkers(small_recipe(), shards_of(3)) as local:
        done = list(train(local, settings, outer()))
    assert digest(done[-1].weights) == digest(written_out(3, 9, 3, {4, 8, 9}, outer()))
    assert [r.number for r in done if r.drained] == [4, 8, 9]


def test_overlap_changes_the_numbers_and_learns_as_well() -> None:
    settings = {"rounds": 30, "tau": 10, "test_every": 10}
    results = []
    for overlap in (False, True):
        with LocalWorkers(small_recipe(), shards_of(3), TEST) as local:
            results.append(list(train(local, Settings(overlap=overlap, **settings))))  # type: ignore[arg-type]
    plain, late = results
    assert digest(plain[-1].weights) != digest(late[-1].weights)
    assert plain[-1].accuracy is not None
    assert late[-1].accuracy is not None
    assert late[-1].accuracy > plain[-1].accuracy - 0.05
    assert [r.number for r in late if r.scores] == [r.number for r in plain if r.scores] == [10, 20, 30]


def test_batch_normalisation_stays_finite() -> None:
    recipe = small_recipe(5, replica=lambda: TorchReplica(batch_normed_net(), momentum_sgd))
    with LocalWorkers(recipe, shards_of(4), TEST) as local:
        for done in train(local, Settings(rounds=20, tau=2, overlap=True, test_every=20)):
            assert np.isfinite(done.weights).all()
        module: nn.Module = local.workers[0].replica.module  # type: ignore[attr-defined]
    assert (module[2].running_var >= 0).all()  # type: ignore[index]


def test_a_test_in_the_middle_drops_what_was_begun() -> None:
    plan = RoundPlan(tau=2)
    with LocalWorkers(small_recipe(), shards_of(2), TEST) as local:
        w = local.initial_weights()
        w = local.train(w, plan, plan).mean  # type: ignore[assignment]
        local.test(w)
        after = local.train(w, plan).mean
    with LocalWorkers(small_recipe(), shards_of(2), TEST) as local:
        w = local.train(local.initial_weights(), plan).mean  # type: ignore[assignment]
        assert digest(local.train(w, plan).mean) == digest(after)  # type: ignore[arg-type]


def test_momentum_that_is_averaged_and_overlap_are_refused_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="which they do not with overlap: momentum keep or reset"):
        Settings(rounds=1, overlap=True, momentum="average")


def test_a_checkpoint_distance_below_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="drain_every is -1"):
        Settings(rounds=1, drain_every=-1)
