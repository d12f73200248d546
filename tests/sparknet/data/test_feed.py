"""Batches made one ahead are those made one by one; errors arrive where they are due; the thread ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from sparknet.data import Examples, Transform, sampler
from sparknet.data.dataset import Batch
from sparknet.data.feed import Ahead, Feed
from sparknet.data.shards import SAMPLERS
from sparknet.replica import TorchReplica
from sparknet.training import RoundPlan
from tests.sparknet.small import momentum_sgd, small_net, small_recipe

RNG = np.random.default_rng(0)
SHARD = Examples(RNG.integers(256, size=(60, 1, 4, 4), dtype=np.uint8), np.arange(60))
CROPPED = Transform(mean=np.full(1, 3, np.float32), scale=0.5, crop=3, mirror=True)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("records", [1, 7, 60], ids=["one record", "less than a batch", "some"])
def test_batches_are_those_of_a_plain_loop(name: str, records: int) -> None:
    """Two steps of two batches each, from step 5 on of worker 2, written out by hand."""
    shard = SHARD[:records]
    plain = sampler(name, records=records, batch_size=10, seed=7, shard=1)
    expected, seeds, selections = [], [], plain.batches(4)
    for step in (5, 6):
        draws = np.random.default_rng([7, 2, step])
        seeds += [int(draws.integers(1 << 62))] * 2
        for _ in range(2):
            rows = shard[next(selections)]
            expected.append((CROPPED(rows.images, train=True, rng=draws), rows.labels))
    chosen = sampler(name, records=records, batch_size=10, seed=7, shard=1)
    feed = Feed(shard, CROPPED, torch.device("cpu"))
    with Ahead(feed.round(chosen, steps=2, batches_per_step=2, seeds=(7, 2), first=5), 4) as ahead:
        made = list(ahead)
    assert [ready.seed for ready in made] == seeds
    assert made[-1].position == plain.position
    for ready, (data, label) in zip(made, expected, strict=True):
        assert torch.equal(ready.wait()["data"], data)
        assert np.array_equal(ready.wait()["label"].numpy(), label)


def test_only_one_item_is_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for k in range(100):
            made.append(k)
            yield k

    with Ahead(items(), 100) as ahead:
        taken = iter(ahead)
        for k in range(5):
            assert next(taken) == k
            deadline = time.monotonic() + 10
            while len(made) < k + 2:
                assert time.monotonic() < deadline
            time.sleep(0.01)
            assert len(made) == k + 2
    assert not [thread for thread in threading.enumerate() if thread.name == "sparknet-feed"]


def test_an_error_is_raised_where_its_item_was_due() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("row 3 is torn")

    taken = []

    def take() -> None:
        with Ahead(items(), 3) as ahead:
            taken.extend(ahead)

    with pytest.raises(ValueError, match="row 3 is torn"):
        take()
    assert not [thread for thread in threading.enumerate() if thread.name == "sparknet-feed"]


class Stops(TorchReplica):
    """Fails in its third step."""

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        if self.iteration == 2:
            raise RuntimeError("struck by lightning")
        return super().step(batches)


def test_an_error_in_a_step_ends_the_thread() -> None:
    recipe = small_recipe(replica=lambda: Stops(small_net(), momentum_sgd))
    worker = recipe.worker(0, Examples(SHARD.images, SHARD.labels % 3))
    with pytest.raises(RuntimeError, match="lightning"):
        worker.train(worker.vector, RoundPlan(tau=10))
    assert not [thread for thread in threading.enumerate() if thread.name == "sparknet-feed"]


class Takes(TorchReplica):
    """Notes the labels that it is given."""

    labels: list[int]

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        batch = next(batches)
        self.labels.extend(batch["label"].tolist())
        time.sleep(0.02)
        return super().step(iter([{**batch, "label": batch["label"] % 3}]))


def test_what_was_made_for_a_step_that_came_too_late_is_read_in_the_next_round() -> None:
    replica = Takes(small_net(), momentum_sgd)
    replica.labels = []
    worker = small_recipe(replica=lambda: replica).worker(0, SHARD)
    steps = [worker.train(worker.vector, RoundPlan(tau=6, time_cap_seconds=0.03)).steps for _ in range(3)]
    assert all(1 <= count < 6 for count in steps)
    while len(replica.labels) < 120:
        worker.train(worker.vector, RoundPlan(tau=1))
    assert sorted(replica.labels[:60]) == sorted(replica.labels[60:120]) == list(range(60))


def test_neighbours_are_not_copied_before_they_are_transformed() -> None:
    feed = Feed(SHARD, Transform(), torch.device("cpu"))
    chosen = sampler("window", records=60, batch_size=10)
    ready = next(feed.round(chosen, steps=1, batches_per_step=1, seeds=(0, 0), first=0))
    start = int(ready.batch["label"][0])
    assert ready.batch["label"].data_ptr() == SHARD.labels[start:].ctypes.data


def test_a_shard_that_cannot_be_written_to_is_read_without_a_warning() -> None:
    images, labels = SHARD.images.copy(), SHARD.labels.copy()
    images.flags.writeable = labels.flags.writeable = False
    worker = small_recipe(sampling="window").worker(0, Examples(images, labels % 3))
    assert worker.train(worker.vector, RoundPlan(tau=3)).steps == 3


@pytest.mark.parametrize("name", SAMPLERS)
def test_batches_come_about_as_fast_as_torch_can_index_them(name: str) -> None:
    """In CPU time, the best of five runs in turn; ``tests/bench/data_rate.py`` measures it with care."""
    rng = np.random.default_rng(0)
    shard = Examples(rng.integers(256, size=(5000, 3, 32, 32), dtype=np.uint8), rng.integers(10, size=5000))
    feed, images = Feed(shard, Transform(), torch.device("cpu")), torch.from_numpy(shard.images)
    rows = [torch.from_numpy(rng.integers(5000, size=100)) for _ in range(50)]
    chosen = sampler(name, records=5000, batch_size=100)
    plain, fed = [], []
    for _ in range(5):
        started = time.process_time()
        for which in rows:
            images[which].float()
        plain.append(time.process_time() - started)
        started = time.process_time()
        for _ in feed.round(chosen, steps=50, batches_per_step=1, seeds=(0, 0), first=0):
            pass
        fed.append(time.process_time() - started)
    assert min(plain) / min(fed) > 0.7


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("name", SAMPLERS)
def test_batches_on_a_gpu_are_those_of_the_cpu(name: str) -> None:
    found = []
    for device in ("cpu", "cuda"):
        chosen = sampler(name, records=60, batch_size=10, seed=7)
        feed = Feed(SHARD, CROPPED, torch.device(device))
        with Ahead(feed.round(chosen, steps=50, batches_per_step=1, seeds=(7, 2), first=0), 50) as ahead:
            found.append([{k: v.cpu() for k, v in ready.wait().items()} for ready in ahead])
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert torch.equal(on_cpu["label"], on_gpu["label"])
        torch.testing.assert_close(on_cpu["data"], on_gpu["data"])
