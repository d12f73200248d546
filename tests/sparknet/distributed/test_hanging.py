"""Workers that hang for good: in a test, in elastic averaging, while weights are fetched, and their tasks."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from sparknet.data.dataset import Batch
from sparknet.distributed.comm.channel import Channel, Frame, Kind
from sparknet.distributed.messages import Member, Message, Request, read_state
from sparknet.distributed.rebalancing import TaskStatus
from sparknet.distributed.worker_service import Service
from sparknet.easgd import Elastic
from sparknet.easgd import train as train_elastically
from sparknet.replica import TorchReplica
from sparknet.training import Scores, Settings, train
from tests.sparknet.distributed.fixtures import (
    TEST,
    join_as,
    members_of,
    reference,
    shards_of,
    wait_for,
    wait_until,
)
from tests.sparknet.distributed.in_process import QUICK, InProcessWorkers, in_process
from tests.sparknet.small import momentum_sgd, small_net, small_recipe

QUICK_TO_GIVE_UP = replace(QUICK, round=60, hang=0.5, lease=0.3, join=10)


class Hangs(TorchReplica):
    """Waits for ``free`` in its steps, or in scoring, once it is ``at`` so many of them."""

    free = threading.Event()
    steps = scores = 10**6

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        self.steps -= 1
        if self.steps <= 0:
            self.free.wait(60)
        return super().step(batches)

    def score(self, batch: Batch) -> dict[str, float]:
        self.scores -= 1
        if self.scores <= 0:
            self.free.wait(60)
        return super().score(batch)


@pytest.fixture
def freed() -> Iterator[threading.Event]:
    Hangs.free = threading.Event()
    yield Hangs.free
    Hangs.free.set()


def hanging(*, steps: int = 10**6, scores: int = 10**6) -> TorchReplica:
    replica = Hangs(small_net(), momentum_sgd)
    replica.steps, replica.scores = steps, scores
    return replica


def test_the_slice_of_one_that_hangs_while_scoring_is_scored_by_another(freed: threading.Event) -> None:
    expected = reference(2, Settings(rounds=1, test_every=1))[-1].scores
    recipe = small_recipe(test_batch_size=8)
    with in_process(recipe, shards_of(2)[:1], TEST, workers=2, timeouts=QUICK_TO_GIVE_UP) as workers:
        stuck = small_recipe(test_batch_size=8, replica=lambda: hanging(scores=2))
        workers.join(1, shards_of(2)[1], 1, stuck)
        wait_for(workers, 0, 1)
        started = time.monotonic()
        done = next(train(workers, Settings(rounds=1, test_every=1)))
        assert time.monotonic() - started < 10
        assert done.scores == expected
        freed.set()


def test_elastic_averaging_goes_on_without_one_that_hangs(freed: threading.Event) -> None:
    with in_process(small_recipe(), shards_of(2)[:1], workers=2, timeouts=QUICK_TO_GIVE_UP) as workers:
        workers.join(1, shards_of(2)[1], 1, small_recipe(replica=lambda: hanging(steps=6)))
        wait_for(workers, 0, 1)
        elastic = Elastic(workers.initial_weights())
        rounds = train_elastically(workers, Settings(rounds=10**6, tau=2), elastic)
        started = time.monotonic()
        wait_until(lambda: next(rounds) and len(members_of(workers)) == 1, seconds=10)
        rounds.close()  # type: ignore[attr-defined]
        assert time.monotonic() - started < 10
        freed.set()


class NeverSendsWeights(Service):
    free = threading.Event()

    def _run_commands(self, channel: Channel) -> None:
        receive = channel.receive

        def stuck(*due: Kind, **options: object) -> Frame:
            frame = receive(*due, **options)  # type: ignore[arg-type]
            if frame.kind is Kind.FETCH:
                self.free.wait(60)
            return frame

        channel.receive = stuck  # type: ignore[method-assign]
        super()._run_commands(channel)


def test_weights_are_fetched_from_another_if_one_hangs_while_it_sends_them() -> None:
    NeverSendsWeights.free = threading.Event()
    with in_process(small_recipe(), [], workers=2, ring=True, timeouts=QUICK_TO_GIVE_UP) as workers:
        join_as(NeverSendsWeights, workers, 0, shards_of(2)[0])
        workers.join(1, shards_of(2)[1], 1)
        wait_for(workers, 0, 1)
        started = time.monotonic()
        rounds = train(workers, Settings(rounds=100, tau=1))
        done = next(rounds)
        assert done.weights.size
        assert time.monotonic() - started < 10
        assert next(rounds).members == (1,)
        NeverSendsWeights.free.set()


def test_an_answer_that_comes_while_something_else_is_waited_for_is_not_lost() -> None:
    with in_process(small_recipe(), shards_of(2)) as workers:
        wait_for(workers, 0, 1)
        membership = workers.coordinator.membership
        first, second = members_of(workers)
        early, late = (
            Request(messages=(Message(Kind.SAVE, {}),), answers=(Kind.STATE,), read=read_state, seconds=5)
            for _ in range(2)
        )
        membership.give(first, early)
        wait_until(lambda: not membership.next(time.monotonic() + 0.05) and early.answer is not None)
        assert [answer.member for answer in membership.ask({second: late})] == [second]
        answer = membership.next_answer({first: early})
        assert answer is not None
        assert answer.member is first
        assert membership.next_answer({}, time.monotonic()) is None


def test_scores_that_come_while_another_is_sent_the_weights_are_not_lost() -> None:
    expected = reference(2, Settings(rounds=1, test_every=1))[-1]
    with in_process(small_recipe(test_batch_size=8), shards_of(2), TEST) as workers:
        wait_for(workers, 0, 1)
        membership, averaging = workers.coordinator.membership, workers.coordinator._averaging
        whole = averaging.whole

        def reads_events(member: Member) -> memoryview:
            for _ in range(5):
                membership.next(time.monotonic() + 0.01)
            return whole(member)

        averaging.whole = reads_events  # type: ignore[method-assign]
        scores: list[Scores] = []
        testing = threading.Thread(target=lambda: scores.append(workers.test(expected.weights)), daemon=True)
        testing.start()
        testing.join(20)
        assert scores == [expected.scores]


def test_healthy_workers_do_not_yield_for_one_that_hangs_and_its_task_is_ended(
    freed: threading.Event,
) -> None:
    ended: list[int] = []
    workers: InProcessWorkers

    def tasks() -> dict[int, TaskStatus]:
        return {number: TaskStatus(attempt=number, seconds=100.0) for number in range(2)}

    def end(attempt: int) -> None:
        ended.append(attempt)
        workers.join(1, shards_of(2)[1], 7)  # Spark starts it again

    recipe, shard = small_recipe(), shards_of(2)[:1]
    with in_process(
        recipe, shard, workers=2, timeouts=QUICK_TO_GIVE_UP, tasks=tasks, end_task=end
    ) as workers:
        workers.join(1, shards_of(2)[1], 1, small_recipe(replica=lambda: hanging(steps=3)))
        wait_for(workers, 0, 1)
        members = []
        for done in train(workers, Settings(rounds=10**6, tau=1)):
            members.append(done.members)
            if {who.attempt for who in workers.coordinator.members} == {0, 7} and len(done.members) == 2:
                break
        assert ended == [1]
        assert (0,) in members  # it went on alone
        assert all(0 in those for those in members)  # and never yielded
        freed.set()


@pytest.mark.parametrize("ring", [False, True])
def test_rounds_leave_nothing_for_the_garbage_collector(ring: bool) -> None:
    """A request and its answer that knew each other would keep the weights of many rounds in memory."""
    with in_process(small_recipe(test_batch_size=8), shards_of(2), TEST, ring=ring) as workers:
        rounds = train(workers, Settings(rounds=100, tau=1, test_every=5))
        next(rounds)
        gc.collect()
        gc.disable()
        try:
            for _ in range(30):
                next(rounds)
            left = [found for found in gc.get_objects() if type(found) is Request]
        finally:
            gc.enable()
        assert len(left) <= 4  # those of the last round
