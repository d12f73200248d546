"""What torch's gloo does, where averaging among workers stands on it or had to go around it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist

from sparknet.distributed.averaging.rendezvous import Rendezvous, new_store

Work = Callable[[Any, int], Any]


def on_each_rank(size: int, work: Work) -> list[Any]:
    """What ``work`` gives in each of the ``size`` members of a group, all in this process."""
    store = new_store("127.0.0.1")
    results: list[Any] = [None] * size

    def run(rank: int) -> None:
        group = Rendezvous(("127.0.0.1", store.port), "127.0.0.1", 20).gloo("group", rank, size)
        try:
            results[rank] = work(group, rank)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return results


def summed(group: Any, tensor: torch.Tensor) -> torch.Tensor:
    group.allreduce([tensor]).wait()
    return tensor


def test_all_ranks_get_the_same_sum_though_its_order_is_the_element_s() -> None:
    """So buckets of another size may give other bits: means are made in the order of the workers instead."""
    values = torch.tensor([1e8, 1.0, -1e8, 1.0])

    def work(group: Any, rank: int) -> torch.Tensor:
        return summed(group, torch.full((4096,), float(values[rank])))

    first, *others = on_each_rank(4, work)
    assert all(torch.equal(first, other) for other in others)
    assert len(set(first.tolist())) > 1  # one sum of the same four numbers, in several orders


def test_a_sum_of_bfloat16_is_rounded_at_every_step() -> None:
    """Accumulation is float32 here, whatever travels."""

    def work(group: Any, rank: int) -> torch.Tensor:
        return summed(group, torch.full((4096,), 256.0 if rank == 0 else 1.0, dtype=torch.bfloat16))

    sums = set(on_each_rank(4, work)[0].tolist())
    assert 259.0 not in sums
    assert sums <= {256.0, 258.0, 260.0}


def test_strides_are_ignored_so_weights_travel_as_one_contiguous_vector() -> None:
    picture = torch.arange(24.0).view(1, 2, 3, 4)

    def work(group: Any, rank: int) -> torch.Tensor:
        form = torch.channels_last if rank else torch.contiguous_format
        return summed(group, picture.clone().contiguous(memory_format=form))

    sums = on_each_rank(2, work)
    assert not torch.equal(sums[0], 2 * picture)  # no error, and no sum


def test_reduce_changes_the_tensors_of_those_who_get_nothing() -> None:
    """A worker whose weights must survive a failed average gives a copy of them, or a buffer of its own."""

    def work(group: Any, rank: int) -> torch.Tensor:
        tensor = torch.full((64,), float(rank + 1))
        options = dist.ReduceOptions()
        options.rootRank = 0
        group.reduce([tensor], options).wait()
        return tensor

    results = on_each_rank(3, work)
    assert torch.equal(results[0], torch.full((64,), 6.0))
    assert any(not torch.equal(results[k], torch.full((64,), k + 1.0)) for k in (1, 2))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_the_average_of_integers_is_an_error_after_they_have_been_overwritten(dtype: torch.dtype) -> None:
    def work(group: Any, rank: int) -> tuple[bool, torch.Tensor]:
        tensor = torch.full((8,), 3 + rank, dtype=dtype)
        options = dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.AVG
        try:
            group.allreduce([tensor], options).wait()
        except RuntimeError:
            return True, tensor
        return False, tensor

    for rank, (failed, tensor) in enumerate(on_each_rank(2, work)):
        assert failed
        assert not torch.equal(tensor, torch.full((8,), 3 + rank, dtype=dtype))
