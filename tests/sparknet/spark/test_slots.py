"""How many workers a cluster gets: all slots, the number asked for, and a word where the two differ."""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace
from typing import Any

import pytest

from sparknet.errors import WorkersLost
from sparknet.spark.slots import threads_each, workers_for
from sparknet.spark.workers import _warn_of_spares


def cluster(*known: int, master: str = "spark://host:7077", cpus: int = 1) -> Any:
    """A session whose executors come one after the other: slots at each look, the last for ever."""
    looks = list(known)

    def slots(_profile: object) -> int:
        return looks.pop(0) if len(looks) > 1 else looks[0]

    scala = SimpleNamespace(
        resourceProfileManager=lambda: SimpleNamespace(defaultResourceProfile=lambda: None),
        maxNumConcurrentTasks=slots,
    )
    conf = SimpleNamespace(get=lambda name, default: str(cpus))
    context = SimpleNamespace(_jsc=SimpleNamespace(sc=lambda: scala), master=master, getConf=lambda: conf)
    return SimpleNamespace(sparkContext=context)


def test_all_slots_are_used_unless_fewer_are_wanted() -> None:
    assert workers_for(cluster(0, 1, 3), settle_seconds=0.3) == 3
    assert workers_for(cluster(4), 2) == 2


def test_enough_slots_are_not_waited_past() -> None:
    assert workers_for(cluster(0, 1, 2, 3), 2, settle_seconds=60) == 2


def test_more_workers_than_slots_are_allowed_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert workers_for(cluster(2), 5, settle_seconds=0.1) == 5
    assert "5 workers are wanted, but spark://host:7077 has 2 slots" in caplog.text


def test_a_cluster_without_executors_is_given_up() -> None:
    with pytest.raises(WorkersLost, match="no executor of spark://host:7077 came within 0 s"):
        workers_for(cluster(0), settle_seconds=0.1, deadline_seconds=0.1)


@pytest.mark.parametrize(
    ("slots", "cpus", "workers", "threads"),
    [(4, 1, 4, 1), (2, 4, 2, 4), (8, 1, 2, 4), (2, 1, 5, 1), (2, 4, 5, 4)],
    ids=["a core each", "four each", "fewer workers", "more workers", "more workers of four"],
)
def test_cores_are_shared_by_those_that_run_at_once(
    slots: int, cpus: int, workers: int, threads: int
) -> None:
    assert threads_each(cluster(slots, cpus=cpus), workers) == threads


def test_on_this_machine_its_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert threads_each(cluster(3, master="local[3]"), 3) == 2


def test_slots_without_a_shard_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _warn_of_spares(0, 3)
        assert not caplog.messages
        _warn_of_spares(2, 3)
    (said,) = caplog.messages  # the text of caplog is JSON once Spark has set up its logging
    assert "2 slots have no shard of their own" in said
    assert 'workers="slots"' in said
