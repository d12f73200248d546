"""Who counts in a round, and what a loss costs: attempts, deadlines, quorum, failures, empty shards."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from sparknet.data.dataset import Batch
from sparknet.distributed.comm.handshake import Refused
from sparknet.errors import DataError, TrainingError, WorkersLost
from sparknet.local import LocalWorkers
from sparknet.replica import TorchReplica
from sparknet.training import RoundPlan, Settings, train
from tests.sparknet.distributed.fixtures import (
    EXAMPLES,
    TEST,
    members_of,
    paused,
    reference,
    shards_of,
    wait_for,
    wait_until,
)
from tests.sparknet.distributed.in_process import QUICK, in_process
from tests.sparknet.small import digest, momentum_sgd, pictures, small_net, small_recipe


def test_a_newer_attempt_takes_the_place_of_the_older() -> None:
    with in_process(small_recipe(), shards_of(2)) as workers:
        rounds = train(workers, Settings(rounds=100, tau=5))
        next(rounds)
        workers.join(0, shards_of(2)[0], attempt=7)
        wait_for(workers, 7)
        done = next(rounds)
        assert done.members == (0, 1)
        assert {who.attempt for who in workers.coordinator.members} == {7, 1}
        assert "attempt 7 took its place" in done.result.lost[0]
        wait_until(lambda: 0 in workers.endings)
        assert isinstance(workers.endings[0], Refused)
        # it goes on from the other's steps and place: the next round would otherwise start its shard again
        assert [report.iteration for report in done.reports] == [10, 10]
        assert [report.position for report in done.reports] == [100, 100]


def test_an_older_attempt_is_refused() -> None:
    with in_process(small_recipe(), shards_of(1)) as workers:
        next(train(workers, Settings(rounds=1)))
        workers.join(0, shards_of(1)[0], attempt=5)
        wait_for(workers, 5)
        with pytest.raises(Refused, match="attempt 5 of partition 0"):
            workers.service(0, shards_of(1)[0], attempt=3).run()
        assert next(train(workers, Settings(rounds=1))).members == (0,)


def test_a_cut_connection_is_mended_and_the_worker_keeps_its_momentum() -> None:
    with LocalWorkers(small_recipe(), shards_of(2)) as local:
        expected = list(train(local, Settings(rounds=4, tau=5)))
    with in_process(small_recipe(), shards_of(2)) as workers:
        rounds = train(workers, Settings(rounds=4, tau=5))
        next(rounds)
        before = set(workers.coordinator.membership.all)
        for member in before:
            member.channel.hang_up()
        wait_until(
            lambda: (
                workers.coordinator.members
                and not before & set(members_of(workers))
                and len(members_of(workers)) == 2
            )
        )
        assert digest(list(rounds)[-1].weights) == digest(expected[-1].weights)


def test_a_worker_that_misses_the_deadline_is_dropped_and_may_come_back() -> None:
    recipe = small_recipe(replica=paused)
    with in_process(recipe, shards_of(2)[:1], workers=2, timeouts=replace(QUICK, round=0.3)) as workers:
        slow = workers.join(1, shards_of(2)[1], attempt=1)
        wait_for(workers, 0, 1)
        rounds = train(workers, Settings(rounds=100, tau=1))
        assert next(rounds).members == (0, 1)
        slow.worker.replica.pause = 0.8  # type: ignore[union-attr]
        started = time.monotonic()
        late = next(rounds)
        assert time.monotonic() - started < 0.7
        assert late.members == (0,)
        assert "did not answer within 0.3 s" in late.result.lost[0]
        slow.worker.replica.pause = 0.0  # type: ignore[union-attr]
        wait_for(workers, 0, 1)
        assert next(rounds).members == (0, 1)


def test_a_worker_that_hangs_is_given_up_long_before_the_deadline_and_may_come_back() -> None:
    free = threading.Event()
    free.set()

    class Hanging(TorchReplica):
        def step(self, batches: Iterator[Batch]) -> torch.Tensor:
            free.wait(60)
            return super().step(batches)

    hanging = small_recipe(replica=lambda: Hanging(small_net(), momentum_sgd))
    patient = replace(QUICK, round=60, hang=2)
    with in_process(small_recipe(), shards_of(3)[:2], workers=3, timeouts=patient) as workers:
        workers.join(2, shards_of(3)[2], 2, hanging)
        wait_for(workers, 0, 1, 2)
        rounds = train(workers, Settings(rounds=100, tau=1))
        assert next(rounds).members == (0, 1, 2)
        free.clear()
        late = next(rounds)
        free.set()
        assert late.members == (0, 1)
        assert "it hangs: no answer in " in late.result.lost[0]
        wait_until(lambda: len(workers.coordinator.members) == 3, seconds=30)
        assert next(rounds).members == (0, 1, 2)


def test_without_workers_it_waits_for_the_deadline_and_says_for_whom() -> None:
    started = time.monotonic()
    with in_process(small_recipe(), [], workers=2, timeouts=replace(QUICK, join=0.3)) as workers:
        with pytest.raises(
            WorkersLost, match=r"within 0\.3 s\. Waited for partitions 0, 1 of 2.*none had joined"
        ):
            next(train(workers, Settings(rounds=1)))
        assert time.monotonic() - started < 2


def test_it_goes_on_with_those_that_came() -> None:
    with in_process(
        small_recipe(), shards_of(3)[:2], workers=3, timeouts=replace(QUICK, join=0.5)
    ) as workers:
        assert next(train(workers, Settings(rounds=1))).members == (0, 1)


def test_a_round_whose_workers_all_died_is_done_by_those_that_replace_them() -> None:
    recipe = small_recipe(replica=lambda: paused(0.3))
    with in_process(recipe, shards_of(1), workers=1) as workers:
        wait_for(workers, 0)
        threading.Timer(0.15, lambda: workers.join(0, shards_of(1)[0], 1, small_recipe())).start()
        done = next(train(workers, Settings(rounds=1, tau=1)))
    assert done.members == (0,)
    assert done.result.lost


def test_a_slice_lost_with_its_worker_is_handed_out_again() -> None:
    expected = reference(2, Settings(rounds=1, test_every=1))[-1].scores

    class Doomed(TorchReplica):
        scored = 0

        def score(self, batch: Batch) -> dict[str, float]:
            self.scored += 1
            if self.scored == 2:
                raise RuntimeError("struck by lightning")
            return super().score(batch)

    recipe = small_recipe(test_batch_size=8)
    with in_process(recipe, shards_of(2)[:1], TEST, workers=2) as workers:
        doomed = small_recipe(test_batch_size=8, replica=lambda: Doomed(small_net(), momentum_sgd))
        workers.join(1, shards_of(2)[1], 1, doomed)
        done = next(train(workers, Settings(rounds=1, test_every=1)))
        wait_until(lambda: 1 in workers.endings)
    assert done.scores == expected
    assert "struck by lightning" in str(workers.endings[1])


def test_an_error_in_the_data_ends_training_with_its_message() -> None:
    with (
        in_process(
            small_recipe(replica=lambda: paused(error=DataError("row 7 is torn"))), shards_of(1)
        ) as workers,
        pytest.raises(DataError, match="row 7 is torn"),
    ):
        next(train(workers, Settings(rounds=1)))


def test_a_worker_that_keeps_failing_ends_training() -> None:
    recipe = small_recipe(replica=lambda: paused(error=MemoryError("no room")))
    with in_process(recipe, shards_of(1)) as workers:

        def again() -> None:
            for attempt in (1, 2):
                wait_until(lambda attempt=attempt: attempt - 1 in workers.endings)
                workers.join(0, shards_of(1)[0], attempt)

        threading.Thread(target=again, daemon=True).start()
        with pytest.raises(TrainingError, match=r"failed \(3 times in a row\): MemoryError: no room"):
            next(train(workers, Settings(rounds=1)))


def test_the_end_of_the_job_ends_training() -> None:
    with in_process(small_recipe(), [], workers=1) as workers:
        threading.Timer(0.1, lambda: workers.coordinator.job_ended("SparkContext was shut down")).start()
        with pytest.raises(TrainingError, match="SparkContext was shut down"):
            next(train(workers, Settings(rounds=1)))
        with pytest.raises(TrainingError, match="SparkContext was shut down"):
            workers.train(workers.initial_weights(), RoundPlan(tau=1))


def test_an_empty_partition_only_tests() -> None:
    with in_process(small_recipe(test_batch_size=8), [EXAMPLES, pictures(0)], TEST) as workers:
        done = list(train(workers, Settings(rounds=2, tau=2, test_every=1)))
    assert done[-1].members == (0,)
    assert done[-1].scores is not None
    assert done[-1].scores.records == len(TEST)


def test_partitions_that_are_all_empty_are_refused() -> None:
    with (
        in_process(small_recipe(), [pictures(0), pictures(0)]) as workers,
        pytest.raises(DataError, match="all 2 part"),
    ):
        next(train(workers, Settings(rounds=1)))


def test_a_net_of_another_size_is_refused() -> None:
    other = small_recipe(
        replica=lambda: TorchReplica(
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)), momentum_sgd
        )
    )
    with in_process(small_recipe(), [], workers=1) as workers:
        workers.join(0, EXAMPLES, recipe=other)
        with pytest.raises(TrainingError, match="its net has 51 weights, the driver's has 243"):
            next(train(workers, Settings(rounds=1)))


def test_idle_workers_are_kept_company() -> None:
    with in_process(small_recipe(), shards_of(1), timeouts=replace(QUICK, ping=0.1)) as workers:
        next(train(workers, Settings(rounds=1)))
        time.sleep(1.0)  # more than the six pings a worker waits for
        assert next(train(workers, Settings(rounds=1))).members == (0,)
        assert not workers.endings


def test_a_quorum_does_not_wait_for_the_slowest_and_has_it_back_later() -> None:
    timeouts = replace(QUICK, quorum=0.6, grace=0.05)
    with in_process(small_recipe(), shards_of(3)[:2], workers=3, timeouts=timeouts) as workers:
        slow = workers.join(2, shards_of(3)[2], 2, small_recipe(replica=paused))
        wait_for(workers, 0, 1, 2)
        rounds = train(workers, Settings(rounds=100, tau=1))
        assert next(rounds).members == (0, 1, 2)
        slow.worker.replica.pause = 0.5  # type: ignore[union-attr]
        late = next(rounds)
        assert late.members == (0, 1)
        assert late.seconds < 0.4
        assert late.result.lost == ()
        assert next(rounds).members == (0, 1)  # it is still busy with the round before
        slow.worker.replica.pause = 0.0  # type: ignore[union-attr]
        time.sleep(0.6)
        assert workers.coordinator.members
        done = next(rounds)
        assert done.members == (0, 1, 2)
        assert [report.member for report in done.result.late] == [2]
        assert not workers.endings


def test_a_quorum_is_a_share_of_all_workers_those_still_at_an_earlier_round_included() -> None:
    """Or it would shrink round by round: two of three, then one of those two."""
    timeouts = replace(QUICK, quorum=0.5, grace=0.01)
    with in_process(small_recipe(), shards_of(3)[:1], workers=3, timeouts=timeouts) as workers:
        late = [workers.join(k, shards_of(3)[k], k, small_recipe(replica=paused)) for k in (1, 2)]
        wait_for(workers, 0, 1, 2)
        rounds = train(workers, Settings(rounds=100, tau=1))
        next(rounds)
        for service, pause in zip(late, (0.2, 2.0), strict=True):
            service.worker.replica.pause = pause  # type: ignore[union-attr]
        assert [next(rounds).members for _ in range(3)] == [(0, 1)] * 3
        late[1].worker.replica.pause = 0.0  # type: ignore[union-attr]
