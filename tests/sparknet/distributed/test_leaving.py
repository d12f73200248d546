"""Workers whose machines are taken back: they hand in what they have, leave, and nothing is lost by it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparknet import easgd
from sparknet.distributed.worker_service import Service
from sparknet.easgd import Elastic
from sparknet.training import Round, RoundPlan, Settings, train
from tests.sparknet.distributed import test_rebalancing as rebalancing
from tests.sparknet.distributed.fixtures import shards_of, slowly, wait_for
from tests.sparknet.distributed.in_process import QUICK, InProcessWorkers, in_process
from tests.sparknet.distributed.test_rebalancing import IMPATIENT, RECIPE, MiniatureSpark, spark
from tests.sparknet.small import small_recipe

PLAN = RoundPlan(tau=5)


def tell(service: Service, folder: Path, *, action: str = "terminate", seconds: float = 0.0) -> None:
    """The machine of that worker is taken back in so many seconds."""
    file = folder / f"notice-{service.who.attempt}"
    file.write_text(json.dumps({"action": action, "seconds": seconds}))
    service.notice._file = file


@pytest.fixture(params=["star", "ring"])
def three(request: pytest.FixtureRequest) -> Iterator[InProcessWorkers]:
    with in_process(small_recipe(), shards_of(3), ring=request.param == "ring") as workers:
        wait_for(workers, 0, 1, 2)
        yield workers


def test_what_a_worker_did_last_counts_and_then_it_leaves(three: InProcessWorkers, tmp_path: Path) -> None:
    first = three.train(three.initial_weights(), PLAN)
    tell(three.services[1], tmp_path)
    second = three.train(first.mean, PLAN)
    assert [(report.member, report.steps) for report in second.reports] == [(0, 5), (1, 1), (2, 5)]
    third = three.train(second.mean, PLAN)
    assert [report.member for report in third.reports] == [0, 2]
    assert (second.lost, third.lost, second.left) == ((), (), ())
    assert [name.startswith("worker 1") for name in third.left] == [True]
    three.threads[1].join(5)
    assert three.endings == {1: None}  # it has ended as one that has done its work


def test_a_worker_that_has_time_trains_on(three: InProcessWorkers, tmp_path: Path) -> None:
    weights = three.train(three.initial_weights(), PLAN).mean
    tell(three.services[1], tmp_path, seconds=3600)
    for _ in range(3):
        result = three.train(weights, PLAN)
        weights = result.mean
        assert [report.steps for report in result.reports] == [5, 5, 5]


def test_a_round_is_handed_in_as_it_is_when_the_machine_is_about_to_go(tmp_path: Path) -> None:
    recipe = small_recipe(replica=slowly)  # 20 ms a step
    with in_process(recipe, shards_of(1)) as workers:
        wait_for(workers, 0)
        threading.Timer(0.3, lambda: tell(workers.services[0], tmp_path, action="end")).start()
        started = time.monotonic()
        result = workers.train(workers.initial_weights(), RoundPlan(tau=200))
        assert 1 < result.reports[0].steps < 100
        assert time.monotonic() - started < 3
        again = workers.train(result.mean, RoundPlan(tau=200))
        assert [report.steps for report in again.reports] == [1]  # and nobody leaves: the cluster ends
        assert again.left == ()


@pytest.mark.parametrize("ring", [False, True], ids=["star", "ring"])
def test_the_shard_of_one_that_leaves_is_given_to_others_at_once(tmp_path: Path, ring: bool) -> None:
    rebalancing.read.clear()
    with spark(3, 3, ring=ring) as workers:
        rounds = train(workers, Settings(rounds=10**6, tau=5))
        next(rounds)
        workers.slots = 2
        tell(workers.running[1], tmp_path)
        next(rounds)
        left = next(rounds)
        assert len(left.result.left) == 1
        read, end = {report.read for report in left.reports}, time.monotonic() + IMPATIENT.lease + 10
        assert read == {0, 2}
        while read != {0, 1, 2}:
            assert time.monotonic() < end, "nobody has taken the shard over"
            done = next(rounds)
            assert done.result.lost == ()
            read |= {report.read for report in done.reports}


@pytest.mark.parametrize("ring", [False, True], ids=["star", "ring"])
def test_all_machines_may_be_taken_back_at_once_and_no_round_is_lost(tmp_path: Path, ring: bool) -> None:
    with spark(2, 2, ring=ring) as workers:
        rounds = train(workers, Settings(rounds=6, tau=5))
        done = [next(rounds), next(rounds)]
        before = replace_all(workers, tmp_path)
        done += rounds
        assert set(workers.running) == {0, 1}
        assert not before & {one.who.attempt for one in workers.running.values()}
    assert all(round_.result.lost == () for round_ in done)
    assert all(np.isfinite(round_.loss) for round_ in done)
    iterations = [max(report.iteration for report in round_.reports) for round_ in done]
    assert iterations == sorted(iterations)
    assert iterations[-1] >= 5 * 5  # those that came went on where the others were


def replace_all(workers: MiniatureSpark, folder: Path) -> set[int]:
    """Tell all workers; other machines take their tasks. The attempts that are told."""
    told = list(workers.running.values())
    for service in told:
        tell(service, folder)
    return {service.who.attempt for service in told}


def test_elastic_averaging_lets_a_worker_go_after_its_exchange(tmp_path: Path) -> None:
    with in_process(small_recipe(), shards_of(3)) as workers:
        wait_for(workers, 0, 1, 2)
        elastic = Elastic(workers.initial_weights())
        seen: list[Round] = []
        for done in easgd.train(workers, Settings(rounds=12, tau=2), elastic):
            seen.append(done)
            if done.number == 3:
                tell(workers.services[1], tmp_path)
        assert {report.member for report in seen[-1].reports} <= {0, 2}
        assert workers.endings == {1: None}
        assert all(done.result.lost == () for done in seen)


def test_a_worker_that_tests_leaves_too(tmp_path: Path) -> None:
    with in_process(RECIPE, rebalancing.shards_of(2), rebalancing.TEST) as workers:
        wait_for(workers, 0, 1)
        first = workers.train(workers.initial_weights(), PLAN)
        tell(workers.services[0], tmp_path)
        assert workers.test(first.mean).records == len(rebalancing.TEST)
        assert workers.test(first.mean).records == len(rebalancing.TEST)
        result = workers.train(first.mean, replace(PLAN, tau=2))
        assert [report.member for report in result.reports] == [1]
        assert result.lost == ()


def test_others_are_waited_for_longer_where_all_machines_were_taken_back(tmp_path: Path) -> None:
    impatient = replace(QUICK, join=1.0, others=20.0)
    with in_process(small_recipe(), shards_of(1), timeouts=impatient) as workers:
        wait_for(workers, 0)
        weights = workers.train(workers.initial_weights(), PLAN).mean
        tell(workers.services[0], tmp_path)
        weights = workers.train(weights, PLAN).mean
        threading.Timer(3.0, lambda: workers.join(0, shards_of(1)[0], attempt=5)).start()
        result = workers.train(weights, PLAN)
        assert (result.lost, len(result.left)) == ((), 1)
        assert [report.iteration for report in result.reports] == [11]  # 5, 1, and 5 of the newcomer's
