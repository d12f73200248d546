"""Workers that average among themselves: as through the driver, also when one drops out in the middle."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from sparknet.codecs import get_codec
from sparknet.distributed.averaging.host_allreduce import bucket_numbers
from sparknet.distributed.averaging.rendezvous import Rendezvous
from sparknet.distributed.comm.channel import Channel, Frame, Kind
from sparknet.distributed.worker_service import Service
from sparknet.errors import TrainingError, WorkersLost
from sparknet.local import LocalWorkers
from sparknet.outer import Average, Outer, SlowMo
from sparknet.replica import TorchReplica
from sparknet.training import Momentum, Round, RoundPlan, Settings, WorkerState, train
from sparknet.weights import fetch
from sparknet.worker import Recipe
from tests.sparknet.distributed.fixtures import (
    TEST,
    DropsOut,
    Explodes,
    exploding,
    join_as,
    shards_of,
    wait_for,
    wait_until,
)
from tests.sparknet.distributed.in_process import QUICK, in_process
from tests.sparknet.small import digest, momentum_sgd, small_net, small_recipe


def in_this_process(recipe: Recipe, workers: int, settings: Settings, outer: Outer) -> list[Round]:
    with LocalWorkers(recipe, shards_of(workers), TEST) as local:
        return list(train(local, settings, outer))


@pytest.mark.parametrize("outer", [Average, SlowMo])
@pytest.mark.parametrize("momentum", ["keep", "average"])
def test_a_ring_gives_what_the_star_gives_bit_for_bit(outer: type[Average], momentum: Momentum) -> None:
    settings = Settings(rounds=8, tau=5, test_every=4, momentum=momentum)
    expected = in_this_process(small_recipe(), 3, settings, outer())
    with in_process(small_recipe(), shards_of(3), TEST, ring=True) as workers:
        done = list(train(workers, settings, outer()))
    assert digest(done[-1].weights) == digest(expected[-1].weights)
    assert [r.members for r in done] == [(0, 1, 2)] * 8
    assert done[-1].scores is not None
    assert done[-1].scores.records == len(TEST)


def test_one_worker_alone_is_the_serial_loop_bit_for_bit() -> None:
    expected = in_this_process(small_recipe(), 1, Settings(rounds=5), Average())
    with in_process(small_recipe(), shards_of(1), ring=True) as workers:
        done = list(train(workers, Settings(rounds=5)))
    assert digest(done[-1].weights) == digest(expected[-1].weights)


@pytest.mark.parametrize("wire", ["float32", "bfloat16", "int8"])
def test_weights_go_past_the_driver_and_their_bytes_are_those_of_a_ring(wire: str) -> None:
    workers_count, settings = 3, Settings(rounds=4, tau=2, test_every=1)
    with in_process(
        small_recipe(test_batch_size=8), shards_of(workers_count), TEST, ring=True, wire=wire
    ) as workers:
        done = list(train(workers, settings))
    size = workers.initial.nbytes
    assert done[0].bytes_sent > workers_count * size  # the first weights
    assert done[2].bytes_sent < workers_count * 500
    assert done[2].bytes_received < workers_count * 500
    both_ways = 2 * (workers_count - 1) * get_codec(wire).size(workers.initial.size)
    scales = 2 * (workers_count - 1) * workers_count * 4 if wire == "int8" else 0  # one for each part begun
    assert both_ways <= done[2].result.bytes_between <= both_ways + scales


@pytest.mark.parametrize("wire", ["bfloat16", "int8"])
def test_a_ring_of_fewer_bits_trains_about_as_well(wire: str) -> None:
    settings = Settings(rounds=40, tau=5, test_every=40)
    expected = in_this_process(small_recipe(test_batch_size=8), 3, settings, Average())[-1]
    with in_process(small_recipe(test_batch_size=8), shards_of(3), TEST, ring=True, wire=wire) as workers:
        done = list(train(workers, settings))[-1]
        nets = {digest(service.worker.vector) for service in workers.services.values()}  # type: ignore[union-attr]
    assert len(nets) == 1  # all make the same of what they hear
    assert np.abs(done.weights - expected.weights).max() < 0.05 * np.abs(expected.weights).max()
    assert done.accuracy == pytest.approx(expected.accuracy, abs=0.05)


def test_the_weights_of_a_round_can_be_fetched_until_the_next_are_made() -> None:
    expected = in_this_process(small_recipe(), 2, Settings(rounds=3, tau=2), Average())
    with in_process(small_recipe(), shards_of(2), ring=True) as workers:
        rounds = train(workers, Settings(rounds=3, tau=2))
        first = next(rounds)
        assert digest(first.weights) == digest(expected[0].weights)
        second = next(rounds)
        third = next(rounds)
        assert digest(first.weights) == digest(expected[0].weights)  # it has been fetched
        with pytest.raises(WorkersLost, match="have gone on"):
            assert second.weights.size
    assert digest(third.weights) == digest(expected[2].weights)  # the last need no workers


def test_a_newcomer_gets_the_weights_that_the_driver_has_not_got() -> None:
    expected = in_this_process(small_recipe(), 2, Settings(rounds=2, tau=2), Average())
    with in_process(small_recipe(test_batch_size=8), shards_of(2), TEST, ring=True) as workers:
        rounds = train(workers, Settings(rounds=50, tau=2))
        done = [next(rounds), next(rounds)]
        assert done[1].bytes_received < workers.initial.nbytes
        workers.join(1, shards_of(2)[1], attempt=7)
        wait_for(workers, 7)
        third = next(rounds)
        assert third.members == (0, 1)
        assert third.bytes_received > workers.initial.nbytes
        assert digest(done[1].weights) == digest(expected[1].weights)


def test_if_all_that_had_the_average_are_gone_the_last_that_was_fetched_is_next() -> None:
    with in_process(small_recipe(), shards_of(2), ring=True) as workers:
        rounds = train(workers, Settings(rounds=50, tau=2))
        fetched = next(rounds).weights
        next(rounds)
        for number in range(2):
            workers.join(number, shards_of(2)[number], attempt=7 + number)
        wait_for(workers, 7, 8)
        third = next(rounds)
        third_weights = third.weights
    assert "going on from that of 1 rounds before" in " ".join(third.result.lost)
    assert third.members == (0, 1)
    with LocalWorkers(small_recipe(), shards_of(2)) as local:
        local.restore({k: WorkerState(iteration=4, position=40) for k in range(2)})
        expected = fetch(local.train(fetched, RoundPlan(tau=2)).mean)
    assert digest(third_weights) == digest(expected)


def test_no_more_rounds_are_lost_with_all_workers_than_the_driver_lets_pass_without_a_copy() -> None:
    with in_process(small_recipe(), shards_of(2), ring=True, copy_every=3) as workers:
        rounds = train(workers, Settings(rounds=50, tau=2))
        copied = [next(rounds) for _ in range(8)]
        assert [done.bytes_received > workers.initial.nbytes for done in copied].count(True) == 2
        for number in range(2):
            workers.join(number, shards_of(2)[number], attempt=7 + number)
        wait_for(workers, 7, 8)
        last = copied[-1].weights  # what the next round begins from: a copy that the driver has
        done = next(rounds)
        after = done.weights
    found = re.search(r"going on from that of (\d+) rounds before", " ".join(done.result.lost))
    assert found
    assert 1 <= int(found[1]) <= 3
    with LocalWorkers(small_recipe(), shards_of(2)) as local:
        local.restore({k: WorkerState(iteration=16, position=160) for k in range(2)})
        assert digest(after) == digest(fetch(local.train(last, RoundPlan(tau=2)).mean))


def test_what_only_one_worker_has_is_fetched_before_it_yields() -> None:
    with in_process(small_recipe(), shards_of(1), ring=True) as workers:
        rounds = train(workers, Settings(rounds=50, tau=2))
        second = [next(rounds), next(rounds)][1]
        workers.coordinator._rebalancer._yield([0])
        assert not workers.coordinator.members
        assert second.weights.size
        workers.join(0, shards_of(1)[0], attempt=7)
        wait_for(workers, 7)
        assert not [lost for lost in next(rounds).result.lost if "rounds before" in lost]


def batch_normed() -> TorchReplica:
    return TorchReplica(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 3)), momentum_sgd)


def test_running_statistics_are_merged_as_in_the_star() -> None:
    settings, recipe = Settings(rounds=4, tau=3), small_recipe(replica=batch_normed)
    expected = in_this_process(recipe, 3, settings, Average())[-1].weights
    with in_process(recipe, shards_of(3), ring=True) as workers:
        weights = list(train(workers, settings))[-1].weights
    assert np.allclose(weights, expected, rtol=1e-5, atol=1e-6)


def test_the_others_average_again_without_one_that_dropped_out() -> None:
    timeouts = replace(QUICK, send=1.0)
    with LocalWorkers(small_recipe(), shards_of(3)) as local:
        first = next(train(local, Settings(rounds=1, tau=5)))
        local.train(first.weights, Settings(rounds=1, tau=5).plan(1, None))
        left = (local.workers[0].vector.astype(np.float64) + local.workers[1].vector) / 2
    with in_process(small_recipe(), shards_of(3)[:2], workers=3, ring=True, timeouts=timeouts) as workers:
        join_as(DropsOut, workers, 2, shards_of(3)[2])
        rounds = train(workers, Settings(rounds=50, tau=5))
        assert next(rounds).members == (0, 1, 2)
        second = next(rounds)
        assert second.members == (0, 1)
        assert "power failure" in second.result.lost[0]
        assert np.allclose(second.weights, left, rtol=1e-5, atol=1e-7)
        assert workers.coordinator.ring_port
        rendezvous = Rendezvous(("127.0.0.1", workers.coordinator.ring_port), "127.0.0.1", 5)
        assert rendezvous.abort_flag.is_set(DropsOut.group)  # whoever waits for it on a GPU stops
        workers.join(2, shards_of(3)[2], attempt=9)
        wait_for(workers, 9)
        assert [next(rounds).members for _ in range(3)] == [(0, 1, 2)] * 3
        wait_until(lambda: 2 in workers.endings)


@pytest.mark.parametrize("wire", ["float32", "bfloat16", "int8"])
def test_a_replica_that_exploded_takes_no_part(wire: str) -> None:
    """The others find it out while they average, and do it again without it."""
    settings = Settings(rounds=4, tau=2)
    made = iter([TorchReplica, TorchReplica, Explodes])
    with LocalWorkers(
        small_recipe(replica=lambda: next(made)(small_net(), momentum_sgd)), shards_of(3)
    ) as local:
        expected = list(train(local, settings))
    with in_process(small_recipe(), shards_of(3)[:2], workers=3, ring=True, wire=wire) as workers:
        workers.join(2, shards_of(3)[2], 2, small_recipe(replica=exploding))
        done = list(train(workers, settings))
    assert [r.members for r in done] == [(0, 1, 2), (0, 1), (0, 1, 2), (0, 1, 2)]
    assert "not numbers" in done[1].result.lost[0]
    assert np.allclose(done[-1].weights, expected[-1].weights, rtol=0.1, atol=5e-3)
    assert wire != "float32" or digest(done[-1].weights) == digest(expected[-1].weights)


class Unreachable(Service):
    def _reduce(self, channel: Channel, frame: Frame) -> None:
        channel.send(Kind.REDUCED, {"done": False, "reason": "no route to host"}, seconds=5)


def test_workers_that_cannot_reach_each_other_say_so() -> None:
    with in_process(small_recipe(), [], workers=2, ring=True) as workers:
        for number in range(2):
            join_as(Unreachable, workers, number, shards_of(2)[number])
        with pytest.raises(TrainingError, match=r"could not average.*no route to host.*exchange=\"star\""):
            next(train(workers, Settings(rounds=1)))


def test_a_ring_leaves_no_thread_of_ours() -> None:
    """Which ``in_process`` asserts, as it does for every run."""
    with in_process(small_recipe(), shards_of(2), ring=True) as workers:
        next(train(workers, Settings(rounds=1)))


def test_buckets_are_cut_smaller_where_links_are_slow() -> None:
    """So that a bucket travels while another is averaged; large vectors are cut as they are anyway."""
    assert bucket_numbers(145_578) > 145_578
    assert 145_578 // bucket_numbers(145_578, slow=True) >= 15
    assert bucket_numbers(61_000_000, slow=True) == bucket_numbers(61_000_000)


@pytest.mark.parametrize("wire", ["float32", "int8"])
def test_a_slow_link_changes_no_bit(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(rounds=4, tau=3)
    digests = []
    for rate in (0.0, 1e12):  # none is slow, and all are
        monkeypatch.setattr("sparknet.distributed.averaging.ring.SLOW", rate)
        monkeypatch.setattr("sparknet.distributed.averaging.host_allreduce._LEAST_BUCKET", 16)
        with in_process(small_recipe(), shards_of(3), ring=True, wire=wire) as workers:
            digests.append(digest(list(train(workers, settings))[-1].weights))
    assert digests[0] == digests[1]
