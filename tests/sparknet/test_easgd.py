"""Elastic averaging: what it conserves, also under sixteen threads, and that it trains."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from sparknet.data import contiguous
from sparknet.easgd import Elastic, train
from sparknet.errors import TrainingError, UsageError
from sparknet.local import LocalWorkers
from sparknet.training import Settings
from sparknet.weights import Vector
from tests.sparknet.small import digest, pictures, small_recipe

SIZE = 70_000
EXAMPLES = pictures()


def drawn(seed: int) -> Vector:
    return np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)


class LockFree(Elastic):
    """As DeepSpark's server: read, then write, and whoever came between is lost."""

    def exchange(self, member: int, vector: Vector, members: int) -> None:
        seen = self.center.copy()
        pull = np.float32(0.9 / members) * (vector - seen)
        time.sleep(0)
        self.center = seen + pull
        self.replicas[member] = vector - pull


def drift(elastic: Elastic, clients: int, exchanges: int) -> float:
    """How much of the centre and the replicas together is gained or lost, relative, by exchanges at once."""
    starts = [drawn(k + 1) for k in range(clients)]
    elastic.replicas = dict(enumerate(starts))
    before = elastic.center.astype(np.float64) + sum(start.astype(np.float64) for start in starts)

    def client(number: int) -> None:
        for _ in range(exchanges):
            elastic.exchange(number, elastic.replicas[number].copy(), clients)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = elastic.center.astype(np.float64) + sum(v.astype(np.float64) for v in elastic.replicas.values())
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


@pytest.mark.slow
def test_nothing_is_lost_by_sixteen_clients_at_once() -> None:
    assert drift(Elastic(drawn(0)), 16, 100) < 1e-5


def test_without_locks_exchanges_are_lost() -> None:
    assert drift(LockFree(drawn(0)), 16, 100) > 1e-3


def test_a_rate_of_zero_leaves_workers_to_themselves() -> None:
    elastic = Elastic(drawn(0), moving_rate=0.0)
    elastic.exchange(0, drawn(1), 3)
    assert np.array_equal(elastic.center, drawn(0))
    assert np.array_equal(elastic.start_of(0), drawn(1))


def test_the_rate_follows_the_number_of_workers() -> None:
    for members in (2, 9):
        elastic = Elastic(np.zeros(SIZE, np.float32))
        elastic.exchange(0, np.ones(SIZE, np.float32), members)
        assert np.allclose(elastic.center, 0.9 / members)
        assert np.allclose(elastic.start_of(0), 1 - 0.9 / members)


def test_one_worker_after_the_other_is_the_published_recursion() -> None:
    """Against the two lines of the paper, in float64."""
    elastic, center = Elastic(drawn(0), moving_rate=0.3), drawn(0).astype(np.float64)
    for step in range(5):
        for member in range(3):
            vector = drawn(10 * step + member)
            elastic.exchange(member, vector, 3)
            pull = 0.3 * (vector - center)
            center = center + pull
            assert np.allclose(elastic.start_of(member), vector - pull, atol=1e-5)
    assert np.allclose(elastic.center, center, atol=1e-5)


def test_it_trains_and_the_centre_is_what_is_tested() -> None:
    shards = [EXAMPLES[part] for part in contiguous(len(EXAMPLES), 3)]
    with LocalWorkers(small_recipe(), shards, pictures(70, seed=1)) as local:
        elastic = Elastic(local.initial_weights())
        done = list(train(local, Settings(rounds=40, tau=10, test_every=20), elastic))
        again = local.test(done[-1].weights)
    assert [len(r.reports) for r in done[1:]] == [3] * 39
    assert [r.number for r in done if r.scores] == [20, 40]
    assert digest(done[-1].weights) == digest(elastic.center)
    assert done[-1].scores == again
    assert done[-1].accuracy is not None
    assert done[-1].accuracy > 0.8


def test_a_replica_that_is_not_a_number_ends_it() -> None:
    with pytest.raises(TrainingError, match="weights of worker 1 have overflowed"):
        Elastic(drawn(0)).exchange(1, drawn(0) * np.nan, 2)


def test_a_rate_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match=r"moving rate is 1\.5"):
        Elastic(drawn(0), moving_rate=1.5)
