"""The engine with real sockets and workers in threads: rounds, scores, bytes and wire formats."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from sparknet.distributed.messages import Member, Request
from sparknet.training import RoundPlan, Settings, train
from sparknet.weights import Vector
from tests.sparknet.distributed.fixtures import (
    SETTINGS,
    TEST,
    paused,
    reference,
    shards_of,
    slowly,
    wait_for,
)
from tests.sparknet.distributed.in_process import in_process
from tests.sparknet.small import digest, small_recipe


def test_rounds_over_sockets_are_those_of_one_process_bit_for_bit() -> None:
    expected = reference(3)
    with in_process(small_recipe(test_batch_size=8), shards_of(3), TEST) as workers:
        done = list(train(workers, SETTINGS))
    assert [digest(r.weights) for r in done] == [digest(r.weights) for r in expected]
    assert [r.scores for r in done] == [r.scores for r in expected]
    assert [r.loss for r in done] == [r.loss for r in expected]


def test_the_scores_do_not_depend_on_the_number_of_workers() -> None:
    scores = []
    for count in (1, 2, 4):
        with in_process(small_recipe(test_batch_size=8), shards_of(count), TEST) as workers:
            scores.append(workers.test(workers.initial_weights()))
    assert scores[0] == scores[1] == scores[2]
    assert scores[0].records == len(TEST)


def test_a_test_takes_few_requests_and_shares_its_slices_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that waits for the driver after every slice loses a round trip with each."""
    recipe = small_recipe(test_batch_size=1)
    slices = recipe.slices(len(TEST))
    given: dict[int, list[int]] = {0: [], 1: []}
    with in_process(recipe, shards_of(2), TEST) as workers:
        membership = workers.coordinator.membership
        give = membership.give

        def counted(member: Member, request: Request) -> None:
            given[member.who.partition].append(len(request.answers))
            give(member, request)

        monkeypatch.setattr(membership, "give", counted)
        workers.test(workers.initial_weights())
    requests = given[0] + given[1]
    assert sum(requests) == len(slices) > 20
    assert len(requests) < len(slices) / 2
    assert max(requests) <= len(slices) / 4
    assert requests.count(1) >= 2


def test_bytes_are_counted_once_down_and_once_up() -> None:
    with in_process(small_recipe(), shards_of(2)) as workers:
        done = next(train(workers, Settings(rounds=1, tau=1)))
    size = workers.initial.nbytes
    assert 2 * size < done.bytes_sent < 2 * (size + 400)
    assert 2 * size < done.bytes_received < 2 * (size + 400)


def test_weights_that_were_tested_are_not_sent_again() -> None:
    with in_process(small_recipe(test_batch_size=8), shards_of(2), TEST) as workers:
        weights = workers.initial_weights()
        workers.test(weights)
        result = workers.train(weights, RoundPlan(tau=1))
    assert result.bytes_sent < workers.initial.nbytes


def test_the_average_does_not_depend_on_who_comes_first() -> None:
    digests = set()
    for slow in range(3):
        with in_process(small_recipe(replica=paused), [], workers=3) as workers:
            for number, shard in enumerate(shards_of(3)):
                workers.join(
                    number, shard, number, small_recipe(replica=slowly if number == slow else paused)
                )
            digests.add(digest(list(train(workers, Settings(rounds=3, tau=3)))[-1].weights))
    assert len(digests) == 1


@pytest.mark.parametrize(("wire", "part"), [("bfloat16", 0.5), ("int8", 0.25)])
def test_fewer_bits_train_about_as_well_and_travel_lighter(wire: str, part: float) -> None:
    settings = Settings(rounds=40, tau=5, test_every=40)
    expected = reference(3, settings)[-1]
    recipe = small_recipe(test_batch_size=8)
    with in_process(recipe, shards_of(3), TEST, wire=wire) as workers:
        done = list(train(workers, settings))
    assert np.abs(done[-1].weights - expected.weights).max() < 0.05 * np.abs(expected.weights).max()
    assert done[-1].accuracy == pytest.approx(expected.accuracy, abs=0.05)
    whole = 3 * workers.initial.nbytes
    headers = 3 * 400
    for traffic in (done[5].bytes_sent, done[5].bytes_received):
        assert part * whole < traffic < part * whole + headers
    assert done[0].bytes_sent > whole  # the first weights are sent in full


def test_newcomers_get_whole_weights_where_the_others_get_deltas() -> None:
    with in_process(small_recipe(test_batch_size=8), shards_of(2), TEST, wire="int8") as workers:
        for done in train(workers, Settings(rounds=20, tau=5, test_every=2)):
            if done.number == 5:
                workers.join(1, shards_of(2)[1], attempt=9)
                wait_for(workers, 9)
        old, new = (workers.services[attempt]._sender for attempt in (0, 9))
    assert done.members == (0, 1)
    assert np.array_equal(old._base, new._base)  # type: ignore[union-attr]
    assert done.accuracy is not None
    assert done.accuracy > 0.7


def test_closing_ends_every_thread_and_may_be_done_again() -> None:
    before = threading.active_count()
    with in_process(small_recipe(), shards_of(2)) as workers:
        next(train(workers, Settings(rounds=1)))
    workers.close()
    assert workers.endings == {0: None, 1: None}
    assert threading.active_count() <= before
    weights: Vector = workers.initial_weights()
    assert weights.size == 243
