"""The engine with real sockets and workers in threads: who counts, who is sent away, what a loss costs."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch

from sparknet import easgd
from sparknet.data import Examples, contiguous
from sparknet.errors import DataError, TrainingError, WorkersLost
from sparknet.local import LocalWorkers
from sparknet.replica import Batch, TorchReplica
from sparknet.spark.exchange import Channel, ExchangeError, Kind
from sparknet.spark.handshake import Identity, Refused, introduce
from sparknet.spark.members import Member
from sparknet.training import Momentum, Order, Round, Settings, train
from sparknet.weights import Vector
from tests.sparknet.small import digest, momentum_sgd, pictures, small_net, small_recipe
from tests.sparknet.spark.crew import QUICK, TOKEN, Crew, crew

EXAMPLES, TEST = pictures(), pictures(70, seed=1)
SETTINGS = Settings(rounds=8, tau=5, test_every=4)


def shards_of(workers: int) -> list[Examples]:
    return [EXAMPLES[part] for part in contiguous(len(EXAMPLES), workers)]


def reference(workers: int, settings: Settings = SETTINGS) -> list[Round]:
    with LocalWorkers(small_recipe(test_batch_size=8), shards_of(workers), TEST) as local:
        return list(train(local, settings))


class Paused(TorchReplica):
    """Waits ``pause`` seconds in a step, or fails in it, when told."""

    pause = 0.0
    error: Exception | None = None

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        time.sleep(self.pause)
        if self.error:
            raise self.error
        return super().step(batches)


def paused(pause: float = 0.0, error: Exception | None = None) -> TorchReplica:
    replica = Paused(small_net(), momentum_sgd)
    replica.pause, replica.error = pause, error
    return replica


def test_rounds_over_sockets_are_those_of_one_process_bit_for_bit() -> None:
    expected = reference(3)
    with crew(small_recipe(test_batch_size=8), shards_of(3), TEST) as workers:
        done = list(train(workers, SETTINGS))
    assert [digest(r.weights) for r in done] == [digest(r.weights) for r in expected]
    assert [r.scores for r in done] == [r.scores for r in expected]
    assert [r.loss for r in done] == [r.loss for r in expected]


def test_the_scores_do_not_depend_on_the_number_of_workers() -> None:
    scores = []
    for count in (1, 2, 4):
        with crew(small_recipe(test_batch_size=8), shards_of(count), TEST) as workers:
            scores.append(workers.test(workers.initial_weights()))
    assert scores[0] == scores[1] == scores[2]
    assert scores[0].records == len(TEST)


def test_bytes_are_counted_once_down_and_once_up() -> None:
    with crew(small_recipe(), shards_of(2)) as workers:
        done = next(train(workers, Settings(rounds=1, tau=1)))
    size = workers.initial.nbytes
    assert 2 * size < done.bytes_sent < 2 * (size + 400)
    assert 2 * size < done.bytes_received < 2 * (size + 400)


def test_weights_that_were_tested_are_not_sent_again() -> None:
    with crew(small_recipe(test_batch_size=8), shards_of(2), TEST) as workers:
        weights = workers.initial_weights()
        workers.test(weights)
        gathered = workers.train(weights, Order(tau=1))
    assert gathered.bytes_sent < workers.initial.nbytes


def test_a_newer_attempt_takes_the_place_of_the_older() -> None:
    with crew(small_recipe(), shards_of(2)) as workers:
        rounds = train(workers, Settings(rounds=100, tau=5))
        next(rounds)
        workers.join(0, shards_of(2)[0], attempt=7)
        wait_for(workers, 7)
        done = next(rounds)
        assert done.members == (0, 1)
        assert {who.attempt for who in workers.coordinator.members} == {7, 1}
        assert "attempt 7 took its place" in done.gathered.lost[0]
        wait_until(lambda: 0 in workers.endings)
        assert isinstance(workers.endings[0], Refused)
        # it goes on from the other's steps and place: the next round would otherwise start its shard again
        assert [report.iteration for report in done.reports] == [10, 10]
        assert [report.position for report in done.reports] == [100, 100]


def test_an_older_attempt_is_refused() -> None:
    with crew(small_recipe(), shards_of(1)) as workers:
        next(train(workers, Settings(rounds=1)))
        workers.join(0, shards_of(1)[0], attempt=5)
        wait_for(workers, 5)
        with pytest.raises(Refused, match="attempt 5 of partition 0"):
            workers.service(0, shards_of(1)[0], attempt=3).run()
        assert next(train(workers, Settings(rounds=1))).members == (0,)


def test_a_cut_connection_is_mended_and_the_worker_keeps_its_momentum() -> None:
    with LocalWorkers(small_recipe(), shards_of(2)) as local:
        expected = list(train(local, Settings(rounds=4, tau=5)))
    with crew(small_recipe(), shards_of(2)) as workers:
        rounds = train(workers, Settings(rounds=4, tau=5))
        next(rounds)
        before = set(workers.coordinator._members.all)
        for member in before:
            member.channel.close()
        wait_until(
            lambda: (
                workers.coordinator.members and not before & set(here(workers)) and len(here(workers)) == 2
            )
        )
        assert digest(list(rounds)[-1].weights) == digest(expected[-1].weights)


def test_a_worker_that_misses_the_deadline_is_dropped_and_may_come_back() -> None:
    recipe = small_recipe(replica=paused)
    with crew(recipe, shards_of(2)[:1], workers=2, deadlines=replace(QUICK, round=0.3)) as workers:
        slow = workers.join(1, shards_of(2)[1], attempt=1)
        wait_for(workers, 0, 1)
        rounds = train(workers, Settings(rounds=100, tau=1))
        assert next(rounds).members == (0, 1)
        slow._worker.replica.pause = 0.8  # type: ignore[union-attr]
        started = time.monotonic()
        late = next(rounds)
        assert time.monotonic() - started < 0.7
        assert late.members == (0,)
        assert "did not answer within 0.3 s" in late.gathered.lost[0]
        slow._worker.replica.pause = 0.0  # type: ignore[union-attr]
        wait_for(workers, 0, 1)
        assert next(rounds).members == (0, 1)


def test_without_workers_it_waits_for_the_deadline_and_says_for_whom() -> None:
    started = time.monotonic()
    with crew(small_recipe(), [], workers=2, deadlines=replace(QUICK, join=0.3)) as workers:
        with pytest.raises(
            WorkersLost, match=r"within 0\.3 s\. Waited for partitions 0, 1 of 2.*none had joined"
        ):
            next(train(workers, Settings(rounds=1)))
        assert time.monotonic() - started < 2


def test_it_goes_on_with_those_that_came() -> None:
    with crew(small_recipe(), shards_of(3)[:2], workers=3, deadlines=replace(QUICK, join=0.5)) as workers:
        assert next(train(workers, Settings(rounds=1))).members == (0, 1)


def test_a_round_whose_workers_all_died_is_done_by_those_that_replace_them() -> None:
    recipe = small_recipe(replica=lambda: paused(0.3))
    with crew(recipe, shards_of(1), workers=1) as workers:
        wait_for(workers, 0)
        threading.Timer(0.15, lambda: workers.join(0, shards_of(1)[0], 1, small_recipe())).start()
        done = next(train(workers, Settings(rounds=1, tau=1)))
    assert done.members == (0,)
    assert done.gathered.lost


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
    with crew(recipe, shards_of(2)[:1], TEST, workers=2) as workers:
        doomed = small_recipe(test_batch_size=8, replica=lambda: Doomed(small_net(), momentum_sgd))
        workers.join(1, shards_of(2)[1], 1, doomed)
        done = next(train(workers, Settings(rounds=1, test_every=1)))
        wait_until(lambda: 1 in workers.endings)
    assert done.scores == expected
    assert "struck by lightning" in str(workers.endings[1])


def test_an_error_in_the_data_ends_training_with_its_message() -> None:
    with (
        crew(small_recipe(replica=lambda: paused(error=DataError("row 7 is torn"))), shards_of(1)) as workers,
        pytest.raises(TrainingError, match=r"worker 0 .* failed: DataError: row 7 is torn"),
    ):
        next(train(workers, Settings(rounds=1)))


def test_a_worker_that_keeps_failing_ends_training() -> None:
    recipe = small_recipe(replica=lambda: paused(error=MemoryError("no room")))
    with crew(recipe, shards_of(1)) as workers:

        def again() -> None:
            for attempt in (1, 2):
                wait_until(lambda attempt=attempt: attempt - 1 in workers.endings)
                workers.join(0, shards_of(1)[0], attempt)

        threading.Thread(target=again, daemon=True).start()
        with pytest.raises(TrainingError, match=r"failed \(3 times in a row\): MemoryError: no room"):
            next(train(workers, Settings(rounds=1)))


def test_the_end_of_the_job_ends_training() -> None:
    with crew(small_recipe(), [], workers=1) as workers:
        threading.Timer(0.1, lambda: workers.coordinator.job_ended("SparkContext was shut down")).start()
        with pytest.raises(TrainingError, match="SparkContext was shut down"):
            next(train(workers, Settings(rounds=1)))
        with pytest.raises(TrainingError, match="SparkContext was shut down"):
            workers.train(workers.initial_weights(), Order(tau=1))


def test_an_empty_partition_only_tests() -> None:
    with crew(small_recipe(test_batch_size=8), [EXAMPLES, pictures(0)], TEST) as workers:
        done = list(train(workers, Settings(rounds=2, tau=2, test_every=1)))
    assert done[-1].members == (0,)
    assert done[-1].scores is not None
    assert done[-1].scores.records == len(TEST)


def test_partitions_that_are_all_empty_are_refused() -> None:
    with (
        crew(small_recipe(), [pictures(0), pictures(0)]) as workers,
        pytest.raises(DataError, match="all 2 part"),
    ):
        next(train(workers, Settings(rounds=1)))


def test_a_net_of_another_size_is_refused() -> None:
    other = small_recipe(
        replica=lambda: TorchReplica(
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)), momentum_sgd
        )
    )
    with crew(small_recipe(), [], workers=1) as workers:
        workers.join(0, EXAMPLES, recipe=other)
        with pytest.raises(TrainingError, match="its net has 51 weights, the driver's has 243"):
            next(train(workers, Settings(rounds=1)))


def test_idle_workers_are_kept_company() -> None:
    with crew(small_recipe(), shards_of(1), deadlines=replace(QUICK, ping=0.1)) as workers:
        next(train(workers, Settings(rounds=1)))
        time.sleep(1.0)  # more than the six pings a worker waits for
        assert next(train(workers, Settings(rounds=1))).members == (0,)
        assert not workers.endings


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: driver\r\n\r\n",
        b"\x00" * 100,
        b"SPKN" + b"\xff" * 16,
        b"SPKN\x02\x00\x00\x00" + (200).to_bytes(4, "big") + (1 << 60).to_bytes(8, "big"),
        b"SPKN\x02\x00\x00\x00" + (2).to_bytes(4, "big") + bytes(8) + b"{}",
        b"SPKN\x02\x00\x00\x00" + (9).to_bytes(4, "big") + bytes(8) + b"[[[[[[[[[",
        b"",
    ],
    ids=["http", "zeros", "unknown kind", "oversized", "not an answer", "not JSON", "nothing"],
)
def test_strangers_are_dropped_and_training_is_unmoved(
    words: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    expected = reference(2)
    with (
        crew(small_recipe(test_batch_size=8), shards_of(2), TEST) as workers,
        caplog.at_level(logging.WARNING),
    ):
        rounds = train(workers, SETTINGS)
        next(rounds)
        with socket.create_connection(workers.address, timeout=5) as stranger, suppress(OSError):
            stranger.sendall(words)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(4096):  # to the end, or until the door is slammed
                pass
        done = list(rounds)
        assert not [r for r in done if r.gathered.lost]
    assert digest(done[-1].weights) == digest(expected[-1].weights)
    assert "dropped a connection" in caplog.text


def test_a_silent_stranger_holds_up_nobody() -> None:
    with crew(small_recipe(), shards_of(1)) as workers:
        strangers = [socket.create_connection(workers.address, timeout=5) for _ in range(20)]
        assert next(train(workers, Settings(rounds=1))).members == (0,)
        for stranger in strangers:
            stranger.close()


def test_only_the_token_opens_the_door(caplog: pytest.LogCaptureFixture) -> None:
    with crew(small_recipe(), shards_of(1)) as workers, caplog.at_level(logging.DEBUG):
        channel = Channel.connect(workers.address, 5)
        with pytest.raises(Refused, match="the token is wrong"):
            introduce(channel, b"x" * 32, Identity(partition=0, attempt=9, host="there", pid=1))
        channel.close()
        assert next(train(workers, Settings(rounds=1))).members == (0,)
    assert TOKEN.decode() not in caplog.text


def test_a_driver_without_the_token_is_not_believed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as impostor:

        def pretend() -> None:
            channel = Channel(impostor.accept()[0])
            channel.send(Kind.CHALLENGE, {"nonce": "0"}, seconds=5)
            channel.receive(Kind.ANSWER, seconds=5)
            channel.send(Kind.WELCOME, {"proof": "0" * 64}, seconds=5)
            channel.close()

        threading.Thread(target=pretend, daemon=True).start()
        channel = Channel.connect(impostor.getsockname(), 5)
        with pytest.raises(ExchangeError, match="not the driver of this job"):
            introduce(channel, TOKEN, Identity(partition=0, attempt=0, host="here", pid=1))
        channel.close()


def test_a_member_that_breaks_the_rules_is_dropped() -> None:
    """It joins properly and then announces more weights than there are."""
    with crew(small_recipe(), shards_of(2)[:1], workers=2) as workers:
        channel = Channel.connect(workers.address, 5)
        introduce(channel, TOKEN, Identity(partition=1, attempt=1, host="there", pid=1))
        size = workers.initial.size
        channel.send(Kind.READY, {"shards": {"1": 5}, "size": size, "iteration": 0, "history": 0}, seconds=5)
        wait_for(workers, 0, 1)
        huge = np.zeros(2 * size, np.float32)

        def misbehave() -> None:
            channel.receive(Kind.TRAIN, into={Kind.TRAIN: memoryview(bytearray(4 * size))}, seconds=5)
            with suppress(OSError):  # the driver need not hear it to the end
                channel.send(Kind.REPORT, {}, huge.data.cast("B"), seconds=5)

        threading.Thread(target=misbehave, daemon=True).start()
        done = next(train(workers, Settings(rounds=1)))
        channel.close()
    assert done.members == (0,)
    assert "announced" in done.gathered.lost[0]


def test_the_average_does_not_depend_on_who_comes_first() -> None:
    digests = set()
    for slow in range(3):
        with crew(small_recipe(replica=paused), [], workers=3) as workers:
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
    with crew(recipe, shards_of(3), TEST, wire=wire) as workers:
        done = list(train(workers, settings))
    assert np.abs(done[-1].weights - expected.weights).max() < 0.05 * np.abs(expected.weights).max()
    assert done[-1].accuracy == pytest.approx(expected.accuracy, abs=0.05)
    whole = 3 * workers.initial.nbytes
    notes = 3 * 400
    for traffic in (done[5].bytes_sent, done[5].bytes_received):
        assert part * whole < traffic < part * whole + notes
    assert done[0].bytes_sent > whole  # the first weights are sent in full


def test_newcomers_get_whole_weights_where_the_others_get_changes() -> None:
    with crew(small_recipe(test_batch_size=8), shards_of(2), TEST, wire="int8") as workers:
        for done in train(workers, Settings(rounds=20, tau=5, test_every=2)):
            if done.number == 5:
                workers.join(1, shards_of(2)[1], attempt=9)
                wait_for(workers, 9)
        old, new = (workers.services[attempt]._uplink for attempt in (0, 9))
    assert done.members == (0, 1)
    assert np.array_equal(old._base, new._base)  # type: ignore[union-attr]
    assert done.accuracy is not None
    assert done.accuracy > 0.7


def test_nobody_waits_for_anybody_in_elastic_averaging() -> None:
    with crew(small_recipe(), shards_of(3)[:2], TEST, workers=3) as workers:
        workers.join(2, shards_of(3)[2], 2, small_recipe(replica=slowly))
        elastic = easgd.Elastic(workers.initial_weights())
        done = list(easgd.train(workers, Settings(rounds=30, tau=5, test_every=15), elastic))
    counts = [sum(report.member == k for r in done for report in r.reports) for k in range(3)]
    assert counts[2] < min(counts[:2]) / 2
    assert done[-1].accuracy is not None
    assert done[-1].accuracy > 0.7


def test_elastic_averaging_outlives_its_workers() -> None:
    with crew(small_recipe(), shards_of(2), TEST) as workers:
        elastic = easgd.Elastic(workers.initial_weights())
        came_back = set()
        for done in easgd.train(workers, Settings(rounds=12, tau=5), elastic):
            if done.number == 4:
                workers.join(0, shards_of(2)[0], attempt=9)
                wait_for(workers, 9)
            elif done.number > 4:
                came_back |= {report.member for report in done.reports}
    assert came_back == {0, 1}


@pytest.mark.parametrize("momentum", ["average", "reset"])
def test_every_treatment_of_momentum_is_that_of_one_process_bit_for_bit(momentum: Momentum) -> None:
    settings = Settings(rounds=5, tau=4, momentum=momentum)
    expected = reference(3, settings)
    with crew(small_recipe(), shards_of(3)) as workers:
        done = list(train(workers, settings))
    assert digest(done[-1].weights) == digest(expected[-1].weights)
    kept = reference(3, Settings(rounds=5, tau=4))
    assert digest(done[-1].weights) != digest(kept[-1].weights)


@pytest.mark.parametrize("momentum", ["keep", "average"])
def test_states_travel_and_come_back(momentum: Momentum) -> None:
    """Half in one crew, half in another that was given the first one's states: as if in one."""
    settings = Settings(rounds=6, tau=4, momentum=momentum)
    expected = reference(3, settings)
    with crew(small_recipe(), shards_of(3)) as workers:
        done = list(train(workers, replace(settings, rounds=3)))
        states = workers.states()
    with crew(small_recipe(), shards_of(3)) as workers:
        workers.restore(states)
        rest = list(train(workers, settings, weights=done[-1].weights, done=3))
    assert [r.number for r in rest] == [4, 5, 6]
    assert digest(rest[-1].weights) == digest(expected[-1].weights)


def test_a_replacement_starts_from_the_mean_momentum_of_the_others() -> None:
    with crew(small_recipe(), shards_of(3)) as workers:
        rounds = train(workers, Settings(rounds=100, tau=5))
        next(rounds)
        before = workers.states()
        newcomer = workers.join(1, shards_of(3)[1], attempt=7, recipe=small_recipe(replica=watched))
        wait_for(workers, 7)
        next(rounds)
    replica = newcomer._worker.replica  # type: ignore[union-attr]
    assert isinstance(replica, Watched)
    assert replica.first is not None
    mean = (before[0].history + before[2].history) / 2  # type: ignore[operator]
    assert np.allclose(replica.first, mean, atol=1e-7)
    assert replica.begun == 5


class Watched(TorchReplica):
    """Remembers the history and the step it began with."""

    first: np.ndarray | None = None
    begun = 0

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        if self.first is None:
            self.first, self.begun = self.history().numpy(), self.iteration
        return super().step(batches)


def watched() -> TorchReplica:
    return Watched(small_net(), momentum_sgd)


def test_a_quorum_does_not_wait_for_the_slowest_and_has_it_back_later() -> None:
    deadlines = replace(QUICK, quorum=0.6, grace=0.05)
    with crew(small_recipe(), shards_of(3)[:2], workers=3, deadlines=deadlines) as workers:
        slow = workers.join(2, shards_of(3)[2], 2, small_recipe(replica=paused))
        wait_for(workers, 0, 1, 2)
        rounds = train(workers, Settings(rounds=100, tau=1))
        assert next(rounds).members == (0, 1, 2)
        slow._worker.replica.pause = 0.5  # type: ignore[union-attr]
        late = next(rounds)
        assert late.members == (0, 1)
        assert late.seconds < 0.4
        assert "later than the others" in late.gathered.lost[0]
        assert next(rounds).members == (0, 1)  # it is still busy with the round before
        slow._worker.replica.pause = 0.0  # type: ignore[union-attr]
        time.sleep(0.6)
        assert workers.coordinator.members
        assert next(rounds).members == (0, 1, 2)
        assert not workers.endings


def slowly() -> TorchReplica:
    return paused(0.02)


def here(workers: Crew) -> list[Member]:
    return list(workers.coordinator._members.all)


def wait_for(workers: Crew, *attempts: int) -> None:
    wait_until(lambda: set(attempts) <= {who.attempt for who in workers.coordinator.members})


def wait_until(true: object, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def test_closing_ends_every_thread_and_may_be_done_again() -> None:
    before = threading.active_count()
    with crew(small_recipe(), shards_of(2)) as workers:
        next(train(workers, Settings(rounds=1)))
    workers.close()
    assert workers.endings == {0: None, 1: None}
    assert threading.active_count() <= before
    weights: Vector = workers.initial_weights()
    assert weights.size == 243
