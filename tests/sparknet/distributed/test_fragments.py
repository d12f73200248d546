"""Averages that travel in parts through the round: later, at a lower rate, and otherwise the same."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sparknet.codecs import Float32
from sparknet.data.dataset import Batch
from sparknet.distributed.averaging.host_allreduce import HostAllReduce, Transfer
from sparknet.distributed.averaging.rendezvous import Rendezvous, new_store
from sparknet.distributed.comm.channel import Channel, Kind, raw
from sparknet.distributed.comm.spread import AT_ONCE, Spread
from sparknet.distributed.timeouts import Timeouts
from sparknet.errors import UsageError
from sparknet.outer import Average, DiLoCo, Outer
from sparknet.overlap import check_fragments
from sparknet.replica import TorchReplica
from sparknet.training import Round, Settings, train
from tests.sparknet.distributed.fixtures import TEST, shards_of
from tests.sparknet.distributed.in_process import in_process
from tests.sparknet.distributed.test_overlap import WAYS, checkpointed, overlapping, reference
from tests.sparknet.small import digest, momentum_sgd, small_net, small_recipe

TIMEOUTS = Timeouts(send=60, ping=10)


def test_pieces_are_as_many_as_there_are_parts_and_none_is_larger_than_it_may_be() -> None:
    assert AT_ONCE.cut(10, 4) == [0, 4, 8]
    assert Spread(parts=5).cut(10, 4) == [0, 2, 4, 6, 8]
    assert Spread(parts=2).cut(10, 4) == [0, 4, 8]
    assert Spread(parts=50).cut(3, 4) == [0, 1, 2]
    assert Spread(parts=5).cut(0, 4) == [0]


def test_pieces_come_when_they_are_due_and_those_that_are_late_at_once() -> None:
    began, at = time.monotonic(), list[float]()
    for number in Spread(parts=4, seconds=0.4).paced(range(4), 4):
        if number == 1:
            time.sleep(0.25)  # longer than a part has: the next one is due already
        at.append(time.monotonic() - began)
    assert at[0] < 0.09
    assert at[2] - at[1] < 0.09
    assert at[3] >= 0.3


def test_a_frame_in_parts_is_the_same_frame() -> None:
    pair = socket.create_server(("127.0.0.1", 0))
    sender = Channel(socket.create_connection(pair.getsockname()))
    receiver = Channel(pair.accept()[0])
    for channel, mine, theirs in ((sender, b"a", b"b"), (receiver, b"b", b"a")):
        channel.authenticate(sent=32 * mine, received=32 * theirs)
    vector = np.random.default_rng(0).normal(size=300_000).astype(np.float32)
    into, took = np.empty_like(vector), list[float]()

    def send() -> None:
        began = time.monotonic()
        sender.send(Kind.WEIGHTS, {"a": 1}, raw(vector), seconds=5, spread=Spread(parts=5, seconds=0.5))
        took.append(time.monotonic() - began)

    thread = threading.Thread(target=send)
    thread.start()
    frame = receiver.receive(Kind.WEIGHTS, into={Kind.WEIGHTS: raw(into)}, seconds=5)
    thread.join()
    assert (frame.header, frame.size) == ({"a": 1}, vector.nbytes)
    assert np.array_equal(into, vector)
    assert took[0] >= 0.4
    for end in (sender, receiver, pair):
        end.close()


def test_a_transfer_is_not_spread_further_than_its_deadlines_allow() -> None:
    assert Spread.over(4, 8.0, TIMEOUTS).seconds == 8
    assert Spread.over(4, 8000.0, TIMEOUTS).seconds == 30
    assert Spread.over(4, 8000.0, Timeouts(send=10)).seconds == 5


class Slow(TorchReplica):
    """A step takes 10 ms."""

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        time.sleep(0.01)
        return super().step(batches)


def slow() -> Slow:
    return Slow(small_net(), momentum_sgd)


def run(ring: bool, wire: str, fragments: int, outer: Outer) -> list[Round]:
    recipe, settings = small_recipe(test_batch_size=8, replica=slow), overlapping(9, drain_every=4)
    with in_process(recipe, shards_of(3), TEST, ring=ring, wire=wire, fragments=fragments) as workers:
        return list(train(workers, settings, outer))


@WAYS
@pytest.mark.parametrize("wire", ["float32", "bfloat16", "int8"])
def test_what_is_merged_is_the_same_bit_for_bit(ring: bool, wire: str) -> None:
    whole, parts = (run(ring, wire, fragments, Average()) for fragments in (1, 3))
    if ring and wire != "float32":  # other workers average other parts, whose own deltas are not rounded
        assert np.abs(whole[-1].weights - parts[-1].weights).max() < 0.01
        return
    assert digest(whole[-1].weights) == digest(parts[-1].weights)
    assert [done.loss for done in whole] == [done.loss for done in parts]


@WAYS
def test_parts_are_those_of_one_process_bit_for_bit(ring: bool) -> None:
    expected = reference(3, overlapping(9, drain_every=4), DiLoCo(), small_recipe(test_batch_size=8))
    assert digest(run(ring, "float32", 5, DiLoCo())[-1].weights) == digest(expected[-1].weights)


@WAYS
@pytest.mark.parametrize("wire", ["float32", "int8"])
def test_a_run_in_parts_that_is_resumed_is_the_one_that_went_on(ring: bool, wire: str) -> None:
    settings = overlapping(11, drain_every=4)
    went_on, again = {}, {}
    with in_process(small_recipe(), shards_of(3), wire=wire, ring=ring, fragments=4) as workers:
        went_on = checkpointed(workers, settings, Average())
    with in_process(small_recipe(), shards_of(3), wire=wire, ring=ring, fragments=4) as workers:
        again = checkpointed(workers, settings, Average(), went_on[4])
    assert {number: digest(taken.weights) for number, taken in again.items()} == {
        number: digest(taken.weights) for number, taken in went_on.items() if number > 4
    }


@WAYS
def test_parts_take_the_time_that_the_round_has(ring: bool) -> None:
    """40 steps of 10 ms: the average is under way for some of it, and still the round is no longer."""
    seconds = {}
    for fragments in (1, 4):
        settings = Settings(rounds=6, tau=40, overlap=True)
        recipe = small_recipe(replica=slow)
        with in_process(recipe, shards_of(2), ring=ring, fragments=fragments) as workers:
            done = list(train(workers, settings))
        seconds[fragments] = sum(each.seconds for each in done[1:]) / 5
    assert seconds[4] < 1.5 * seconds[1]


class Recording(HostAllReduce):
    """``times`` when it has sent parts of its own vector, in seconds from the first, with their bytes."""

    times: list[tuple[float, int]]

    def send(self, data: NDArray[Any], peer: int, tag: int) -> Transfer:
        if tag % 2 == 0:
            self.times.append((time.monotonic() - self.began, data.nbytes))
        return super().send(data, peer, tag)

    @cached_property
    def began(self) -> float:
        return time.monotonic()


def test_a_ring_sends_its_parts_one_after_the_other_and_not_before_they_are_due() -> None:
    """So in no time of a part's length more than a part leaves, or what was late before."""
    vector, store = np.ones(80_000, np.float32), new_store("127.0.0.1")
    members = [Recording(Rendezvous(("127.0.0.1", store.port), "127.0.0.1", 20), Float32()) for _ in range(2)]

    def average(rank: int) -> None:
        members[rank].times = []
        members[rank].join("group", rank, 2)
        members[rank].average(vector, None, [1, 1], rank, np.empty_like(vector), Spread(parts=4, seconds=0.8))

    threads = [threading.Thread(target=average, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for member in members:
        assert [count for _, count in member.times] == [40_000] * 4  # half of each part is the other's
        for number, (at, _) in enumerate(member.times):
            assert at >= number * 0.2 - 0.01


def test_parts_without_overlap_are_refused_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="give both, or neither"):
        check_fragments(2, overlap=False)
    with pytest.raises(UsageError, match="fragments is 0"):
        check_fragments(0, overlap=True)
    check_fragments(1, overlap=False)
    check_fragments(9, overlap=True)
