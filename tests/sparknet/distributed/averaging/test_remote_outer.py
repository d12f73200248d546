"""Workers that average among themselves take the outer optimiser's step themselves: as the driver would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparknet.checkpoint import Checkpoints, resumed
from sparknet.errors import WorkersLost
from sparknet.local import LocalWorkers
from sparknet.outer import DiLoCo, Outer, SlowMo
from sparknet.training import RoundPlan, Settings, WorkerState, train
from sparknet.weights import fetch
from tests.sparknet.distributed.fake_gpu import Mixed, OnGpus, Sharing, apart
from tests.sparknet.distributed.fixtures import TEST, exploding, shards_of, wait_for
from tests.sparknet.distributed.in_process import QUICK, InProcessWorkers, in_process
from tests.sparknet.small import digest, small_recipe

SETTINGS = Settings(rounds=8, tau=5, test_every=4)

OUTERS: dict[str, Callable[[], Outer]] = {
    "SlowMo": SlowMo,
    "SlowMo 0.8": lambda: SlowMo(0.8, 0.3),
    "DiLoCo": lambda: DiLoCo(0.3, 0.5),
}


@pytest.mark.parametrize("name", OUTERS)
def test_the_workers_step_as_the_driver_would_bit_for_bit_and_send_it_nothing(name: str) -> None:
    alone, ours = OUTERS[name](), OUTERS[name]()
    with LocalWorkers(small_recipe(test_batch_size=8), shards_of(3), TEST) as local:
        expected = list(train(local, SETTINGS, alone))
    recipe, quiet = small_recipe(test_batch_size=8), replace(QUICK, ping=5)  # pings are bytes too
    with in_process(recipe, shards_of(3), TEST, ring=True, timeouts=quiet) as workers:
        done = list(train(workers, SETTINGS, ours))
        assert digest(ours.state["momentum"]) == digest(alone.state["momentum"])
    assert digest(done[-1].weights) == digest(expected[-1].weights)
    assert [one.members for one in done] == [(0, 1, 2)] * 8
    assert [one.accuracy for one in done] == pytest.approx([one.accuracy for one in expected])
    for one in done[1:-1]:
        assert max(one.bytes_sent, one.bytes_received) < 3 * 600 < workers.initial.nbytes * 3


@pytest.mark.parametrize("wire", ["bfloat16", "int8"])
def test_all_take_the_same_step_whatever_the_wire(wire: str) -> None:
    with in_process(small_recipe(), shards_of(3), ring=True, wire=wire) as workers:
        list(train(workers, Settings(rounds=6, tau=5), SlowMo()))
        workers.states()  # whoever answers has taken the last step
        assert len({digest(memory) for memory in memories(workers)}) == 1
        nets = [service.worker.vector for service in workers.services.values() if service.worker]
        assert len({digest(net) for net in nets}) == 1


def memories(workers: InProcessWorkers, *attempts: int) -> Iterator[np.ndarray]:
    for attempt in attempts or workers.services:
        averaging = workers.services[attempt]._participant
        assert averaging is not None
        yield np.frombuffer(averaging.memory, np.float32)


def test_a_run_goes_on_from_a_checkpoint_of_it_bit_for_bit(tmp_path: Path) -> None:
    with LocalWorkers(small_recipe(), shards_of(2)) as local:
        expected = list(train(local, Settings(rounds=6, tau=5), SlowMo()))[-1]
    saved, outer = Checkpoints(str(tmp_path), every=3), SlowMo()
    with in_process(small_recipe(), shards_of(2), ring=True) as workers:
        for done in train(workers, Settings(rounds=4, tau=5), outer):
            if done.number <= 3:
                saved.after(done, workers, outer)
    again = SlowMo()
    with in_process(small_recipe(), shards_of(2), ring=True) as workers:
        start = resumed(saved.latest(), workers, again)
        rest = list(train(workers, Settings(rounds=6, tau=5), again, **start))
    assert [done.number for done in rest] == [4, 5, 6]
    assert digest(rest[-1].weights) == digest(expected.weights)


@pytest.mark.parametrize("kind", [OnGpus, Sharing, Mixed])
def test_workers_on_gpus_step_as_the_driver_would(kind: type[OnGpus]) -> None:
    with LocalWorkers(small_recipe(), shards_of(3)) as local:
        expected = list(train(local, Settings(rounds=5, tau=5), SlowMo()))[-1]
    with in_process(apart(), shards_of(3), ring=True, kind=kind) as workers:
        done = list(train(workers, Settings(rounds=5, tau=5), SlowMo()))
    assert digest(done[-1].weights) == digest(expected.weights)
    assert max(one.bytes_received for one in done[1:-1]) < 3 * 600


def with_a_newcomer(ring: bool) -> tuple[str, int]:
    """Eight rounds, the second of two workers replaced after the third: the last weights, and bytes."""
    with in_process(small_recipe(), shards_of(2), ring=ring) as workers:
        rounds = train(workers, Settings(rounds=8, tau=5), SlowMo())
        for _ in range(3):
            next(rounds)
        workers.join(1, shards_of(2)[1], attempt=7)
        wait_for(workers, 7)
        fourth = next(rounds)
        rest = list(rounds)
        workers.states()
        if ring:
            assert len({digest(memory) for memory in memories(workers, 0, 7)}) == 1
    assert fourth.members == (0, 1)
    return digest(rest[-1].weights), fourth.bytes_received


def test_a_newcomer_steps_with_the_others_memory() -> None:
    """As in a star, where the driver takes all steps."""
    expected, _ = with_a_newcomer(ring=False)
    found, received = with_a_newcomer(ring=True)
    assert found == expected
    size = small_recipe().build().weights.numel() * 4
    assert 2 * size < received < 3 * size  # the weights and the memory of one worker


def with_one_that_explodes(ring: bool) -> tuple[list[tuple[int, ...]], str]:
    with in_process(small_recipe(), shards_of(3)[:2], workers=3, ring=ring) as workers:
        workers.join(2, shards_of(3)[2], 2, small_recipe(replica=exploding))
        done = list(train(workers, Settings(rounds=5, tau=2), SlowMo()))
    return [one.members for one in done], digest(done[-1].weights)


def test_one_that_missed_a_step_is_sent_what_it_missed() -> None:
    members, weights = with_one_that_explodes(ring=True)
    assert members == [(0, 1, 2), (0, 1), (0, 1, 2), (0, 1, 2), (0, 1, 2)]
    assert (members, weights) == with_one_that_explodes(ring=False)


def test_if_all_are_gone_weights_and_memory_are_those_that_were_fetched_last() -> None:
    outer = SlowMo()
    with in_process(small_recipe(), shards_of(2), ring=True) as workers:
        rounds = train(workers, Settings(rounds=50, tau=2), outer)
        first, momentum = next(rounds).weights, outer.state["momentum"]
        next(rounds)
        for number in range(2):
            workers.join(number, shards_of(2)[number], attempt=7 + number)
        wait_for(workers, 7, 8)
        third = next(rounds)
        third_weights = third.weights
    lost = " ".join(third.result.lost)
    assert "going on from that of 1 rounds before" in lost
    assert "outer optimiser's momentum: going on from that which was fetched last" in lost
    alone = SlowMo()
    alone.resume({"momentum": momentum})
    with LocalWorkers(small_recipe(), shards_of(2)) as local:
        local.restore({k: WorkerState(iteration=4, position=40) for k in range(2)})
        result = local.train(first, RoundPlan(tau=2))
    assert digest(third_weights) == digest(alone.step(first, fetch(result.mean), result.lr))


def test_a_memory_that_nobody_has_any_more_says_so() -> None:
    outer = SlowMo()
    with in_process(small_recipe(), shards_of(2), ring=True) as workers:
        next(train(workers, Settings(rounds=5, tau=2), outer))
        kept = outer.memory
        assert kept is not None
    with pytest.raises(WorkersLost, match="momentum are gone"):
        fetch(kept)


class Mine(SlowMo):
    """One that only the driver has."""


def test_an_optimiser_of_the_users_own_steps_in_the_driver() -> None:
    with LocalWorkers(small_recipe(), shards_of(2)) as local:
        expected = list(train(local, Settings(rounds=4, tau=5), SlowMo()))[-1]
    with in_process(small_recipe(), shards_of(2), ring=True) as workers:
        done = list(train(workers, Settings(rounds=4, tau=5), Mine()))
    assert digest(done[-1].weights) == digest(expected.weights)
    assert done[2].bytes_received > workers.initial.nbytes
