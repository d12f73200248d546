"""Averaging where the weights lie: the host's numbers bit for bit, and an error when a member is gone.

Any device and any group will do, so CPU tensors and gloo stand for GPUs and NCCL here; the tests marked
``gpu`` use those.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sparknet.distributed.averaging import device_allreduce, rendezvous
from sparknet.distributed.averaging.device_allreduce import DeviceAllReduce
from sparknet.distributed.averaging.rendezvous import (
    AbortFlag,
    MakeGroup,
    Rendezvous,
    nccl_is_here,
    new_store,
)
from sparknet.merge import Statistics, distance
from sparknet.weights import Vector, mean_of

HERE = "127.0.0.1"
CPU = torch.device("cpu")
# two layers that keep the number their statistics are multiplied by, as Caffe's, and one that does not
STATISTICS = (
    Statistics(mean=slice(2, 5), variance=slice(5, 8), scale=8),
    Statistics(mean=slice(20, 21), variance=slice(21, 22), scale=22),
    Statistics(mean=slice(11, 15), variance=slice(15, 19)),
)

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here"),
]
needs_two_gpus = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL needs a GPU for each of two workers"),
    pytest.mark.skipif(not nccl_is_here(), reason="this torch was built without NCCL"),
]
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])


def drawn(workers: int, length: int, seed: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, generator=generator) for _ in range(workers)]


def bits(numbers: torch.Tensor | Vector) -> bytes:
    return (numbers if isinstance(numbers, np.ndarray) else numbers.cpu().numpy()).tobytes()


@devices
@pytest.mark.parametrize("steps", [[1], [4, 4], [1, 2], [7, 7, 7], [3, 5, 10]], ids=str)
def test_a_mean_is_the_hosts_bit_for_bit(steps: list[int], device: str) -> None:
    vectors = drawn(len(steps), 1000)
    vectors[0][:4] = torch.tensor([torch.nan, torch.inf, 3e38, 1e-45])
    mean = torch.empty(1000, device=device)
    device_allreduce.mean_of([vector.to(device) for vector in vectors], steps, out=mean)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = mean_of([vector.numpy() for vector in vectors], steps)
    assert mean[0].isnan()  # of which there are several
    assert bits(mean[1:]) == bits(expected[1:])


@devices
def test_a_distance_is_the_hosts(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_allreduce, "_BLOCK", 300)
    start, vector = drawn(2, 1001)
    expected = distance(start.numpy(), vector.numpy())
    moved = partial(device_allreduce.distance, start.to(device))
    assert moved(vector.to(device)) == pytest.approx(expected, rel=1e-6)
    assert moved(start.to(device)) == 0
    for wrong in (torch.nan, torch.inf, 1e25):
        vector[700] = wrong
        assert moved(vector.to(device)) == torch.inf


@devices
@pytest.mark.parametrize("seen", [(1.0, 2.5, 0.125), (0.0, 3.0, 0.0), (0.0, 0.0, 0.0)], ids=str)
def test_the_spread_of_running_means_is_the_hosts_bit_for_bit(seen: Sequence[float], device: str) -> None:
    steps, vectors = [3, 5, 10], drawn(3, 23)
    for vector, scale in zip(vectors, seen, strict=True):
        vector[8], vector[22] = scale, 7.0
    hosts = [vector.numpy() for vector in vectors]
    expected = mean_of(hosts, steps)
    mean = torch.from_numpy(expected.copy()).to(device)
    for statistic in STATISTICS:
        statistic.join(expected, hosts, steps)
    spread = device_allreduce.Spread(STATISTICS, mean.device)
    spread.widen(mean, [spread.of(mean, v.to(device), n) for v, n in zip(vectors, steps, strict=True)])
    assert bits(mean) == bits(expected)


def test_a_net_without_running_statistics_has_no_spread() -> None:
    assert not device_allreduce.Spread((), CPU)


@pytest.fixture(scope="module")
def store() -> Any:
    return new_store(HERE)


@pytest.fixture
def gloo(store: Any) -> Callable[[int], MakeGroup]:
    """What makes the groups of the k-th worker."""
    return lambda _: Rendezvous((HERE, store.port), HERE, 3).gloo


@pytest.fixture
def nccl(store: Any) -> Callable[[int], MakeGroup]:
    return lambda k: Rendezvous((HERE, store.port), HERE, 20).nccl(torch.device("cuda", k))


def at_once(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each returns, or the error it raises."""

    def ended(job: Callable[[], Any]) -> Any:
        try:
            return job()
        except RuntimeError as error:
            return error

    with ThreadPoolExecutor(len(jobs)) as threads:
        return list(threads.map(ended, jobs))


def averaged(
    allreduces: Sequence[DeviceAllReduce], key: str, vectors: Sequence[torch.Tensor], steps: Sequence[int]
) -> list[Any]:
    """What each member of a new group makes of ``vectors``, or its error."""

    def job(rank: int) -> torch.Tensor:
        mean = torch.empty_like(vectors[rank])
        allreduces[rank].join(key, rank, len(allreduces))
        allreduces[rank].average(vectors[rank], steps, mean)
        allreduces[rank].widen(vectors[rank], steps, mean)
        return mean

    return at_once([partial(job, rank) for rank in range(len(allreduces))])


@contextmanager
def left_at_the_end(allreduces: list[DeviceAllReduce]) -> Iterator[list[DeviceAllReduce]]:
    """A group of NCCL holds memory of its GPU until it is left."""
    try:
        yield allreduces
    finally:
        for allreduce in allreduces:
            allreduce.leave()


def expected_of(vectors: Sequence[torch.Tensor], steps: Sequence[int]) -> Vector:
    hosts = [vector.cpu().numpy() for vector in vectors]
    mean = mean_of(hosts, steps)
    if len(hosts) > 1:
        for statistic in STATISTICS:
            statistic.join(mean, hosts, steps)
    return mean


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("length", [23, 1000, 1001])
def test_a_ring_of_tensors_gives_what_the_star_gives_bit_for_bit(
    workers: int, length: int, gloo: Callable[[int], MakeGroup]
) -> None:
    vectors, steps = drawn(workers, length), [3, 5, 10][:workers]
    allreduces = [DeviceAllReduce(gloo(k), CPU, 5, STATISTICS, chunk=100) for k in range(workers)]
    for mean in averaged(allreduces, f"{workers}-{length}", vectors, steps):
        assert bits(mean) == bits(expected_of(vectors, steps))


def test_more_members_than_numbers(gloo: Callable[[int], MakeGroup]) -> None:
    vectors = drawn(3, 1)
    allreduces = [DeviceAllReduce(gloo(k), CPU, 5) for k in range(3)]
    for mean in averaged(allreduces, "few", vectors, [1, 1, 1]):
        assert bits(mean) == bits(mean_of([vector.numpy() for vector in vectors], [1, 1, 1]))


def test_the_bytes_of_a_group_do_not_grow_with_chunks(gloo: Callable[[int], MakeGroup]) -> None:
    vectors = drawn(3, 1000)
    for chunk in (50, 10_000):
        allreduces = [DeviceAllReduce(gloo(k), CPU, 5, chunk=chunk) for k in range(3)]
        averaged(allreduces, f"bytes-{chunk}", vectors, [1, 1, 1])
        rest = 2 * 2 * 3 * 4  # what the last parts are filled up with
        assert 0 <= sum(allreduce.sent for allreduce in allreduces) - 2 * 2 * 4000 <= rest


class Dies(DeviceAllReduce):
    """It is gone once it has sent a part of its ``at``-th chunk."""

    at = 3

    def _scatter(self, vector: torch.Tensor, out: torch.Tensor) -> Any:
        self.at -= 1
        if not self.at:
            self.leave()
            raise RuntimeError("power failure")
        return super()._scatter(vector, out)


def test_survivors_get_an_error_and_average_again_from_what_they_still_have(
    gloo: Callable[[int], MakeGroup],
) -> None:
    vectors, steps = drawn(3, 1000), [3, 5, 10]
    before = [bits(vector) for vector in vectors]
    allreduces = [DeviceAllReduce(gloo(k), CPU, 5, STATISTICS, chunk=100) for k in range(2)]
    ends = averaged([*allreduces, Dies(gloo(2), CPU, 5, STATISTICS, chunk=100)], "three", vectors, steps)
    assert all(isinstance(end, RuntimeError) for end in ends)
    assert [bits(vector) for vector in vectors] == before
    for mean in averaged(allreduces, "two", vectors[:2], steps[:2]):
        assert bits(mean) == bits(expected_of(vectors[:2], steps[:2]))


class Silent:
    """A group whose operations never end until it is left, as NCCL's do when a peer has stopped."""

    def __init__(self, *_: Any) -> None:
        self.left = False

    def alltoall_base(self, *_: Any) -> Silent:
        return self

    def is_completed(self) -> bool:
        return self.left

    def abort(self) -> None:
        self.left = True


def test_a_member_that_says_nothing_is_waited_for_until_the_deadline_and_the_group_is_left() -> None:
    group = Silent()
    allreduce = DeviceAllReduce(lambda *_: group, CPU, 0.05)
    allreduce.join("silent", 0, 2)
    with pytest.raises(RuntimeError, match=r"did not end within 0\.05 s"):
        allreduce.average(torch.ones(10), [1, 1], torch.empty(10))
    assert group.left


def test_a_member_that_waits_for_one_that_is_gone_sees_the_abort_flag(store: Any) -> None:
    abort_flag, group = Rendezvous((HERE, store.port), HERE, 5).abort_flag, Silent()
    allreduce = DeviceAllReduce(lambda *_: group, CPU, 60, abort_flag=abort_flag)
    allreduce.join("left", 0, 2)
    assert not abort_flag.is_set("left")
    AbortFlag.of(store).set("left")
    with pytest.raises(RuntimeError, match="is gone, or has given up"):
        allreduce.average(torch.ones(10), [1, 1], torch.empty(10))
    assert group.left


def test_a_member_that_gives_up_sets_the_flag_for_the_others(store: Any) -> None:
    abort_flag = Rendezvous((HERE, store.port), HERE, 5).abort_flag
    allreduce = DeviceAllReduce(Silent, CPU, 0.05, abort_flag=abort_flag)
    allreduce.join("alone", 0, 2)
    with pytest.raises(RuntimeError, match="did not end"):
        allreduce.average(torch.ones(10), [1, 1], torch.empty(10))
    assert AbortFlag.of(store).is_set("alone")
    assert not AbortFlag.of(store).is_set("left alone")


def test_a_group_is_met_once_and_left_for_the_next() -> None:
    met, left = list[str](), list[str]()

    class Group:
        def __init__(self, key: str, _rank: int, _size: int) -> None:
            met.append(key)
            self.key = key

        def abort(self) -> None:
            left.append(self.key)

    allreduce = DeviceAllReduce(Group, CPU, 5)
    for key in ("a", "a", "b"):
        allreduce.join(key, 0, 2)
    assert (met, left) == (["a", "b"], ["a"])
    allreduce.leave()
    allreduce.leave()
    assert left == ["a", "b"]


class Nccl:
    """What torch has for groups of GPUs, as far as one is made of it."""

    Options = staticmethod(lambda: SimpleNamespace(config=SimpleNamespace(blocking=None)))

    def __init__(self, store: Any, rank: int, size: int, options: Any) -> None:
        self.options, self.place = options, (rank, size)
        self.aborted = False
        made.append(self)

    def eager_connect_single_device(self, device: torch.device) -> None:
        if device.index:
            raise RuntimeError("no route to host")

    def abort(self) -> None:
        self.aborted = True


made: list[Nccl] = []


@pytest.fixture
def like_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    made.clear()
    for name in ("TORCH_NCCL_BLOCKING_WAIT", "TORCH_NCCL_NONBLOCKING_TIMEOUT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(rendezvous._dist, "ProcessGroupNCCL", Nccl, raising=False)


@pytest.mark.usefixtures("like_nccl")
def test_a_group_of_gpus_raises_errors_and_delays_where_they_are_waited_for(store: Any) -> None:
    """With torch's own settings a thread of NCCL's group would end the process."""
    group = Rendezvous((HERE, store.port), HERE, 6.5).nccl(torch.device("cuda", 0))("key", 1, 2)
    assert group.place == (1, 2)
    assert group.options._timeout.total_seconds() == 6.5
    assert group.options.config.blocking == 0
    assert os.environ["TORCH_NCCL_BLOCKING_WAIT"] == "1"
    assert os.environ["TORCH_NCCL_NONBLOCKING_TIMEOUT"] == "7"
    assert not group.aborted


@pytest.mark.usefixtures("like_nccl")
def test_a_group_of_gpus_that_cannot_connect_is_taken_down(store: Any) -> None:
    with pytest.raises(RuntimeError, match="no route"):
        Rendezvous((HERE, store.port), HERE, 5).nccl(torch.device("cuda", 1))("key", 1, 2)
    assert made[0].aborted


@pytest.mark.parametrize("length", [23, 1001])
@pytest.mark.parametrize("steps", [[1, 1], [3, 5]], ids=str)
@pytest.mark.parametrize("_", [pytest.param(0, marks=needs_two_gpus)])
def test_a_ring_of_two_gpus_gives_what_the_star_gives_bit_for_bit(
    _: int, length: int, steps: list[int], nccl: Callable[[int], MakeGroup]
) -> None:
    vectors = [vector.to(torch.device("cuda", k)) for k, vector in enumerate(drawn(2, length))]
    with left_at_the_end(
        [
            DeviceAllReduce(nccl(k), vector.device, 20, STATISTICS, chunk=100)
            for k, vector in enumerate(vectors)
        ]
    ) as allreduces:
        for mean in averaged(allreduces, f"gpus-{length}-{steps}", vectors, steps):
            assert bits(mean) == bits(expected_of(vectors, steps))


@pytest.mark.parametrize("_", [pytest.param(0, marks=needs_two_gpus)])
def test_a_gpu_whose_peer_is_gone_raises_and_can_join_another_group(
    _: int, nccl: Callable[[int], MakeGroup]
) -> None:
    vectors = [vector.to(torch.device("cuda", k)) for k, vector in enumerate(drawn(2, 1000))]
    before = bits(vectors[0])
    allreduce = DeviceAllReduce(nccl(0), vectors[0].device, 20, STATISTICS, chunk=100)
    ends = averaged(
        [allreduce, Dies(nccl(1), vectors[1].device, 20, STATISTICS, chunk=100)], "x", vectors, [1, 1]
    )
    assert all(isinstance(end, RuntimeError) for end in ends)
    assert bits(vectors[0]) == before
    again = [allreduce, DeviceAllReduce(nccl(1), vectors[1].device, 20, STATISTICS, chunk=100)]
    with left_at_the_end(again) as allreduces:
        for mean in averaged(allreduces, "y", vectors, [1, 1]):
            assert bits(mean) == bits(expected_of(vectors, [1, 1]))
