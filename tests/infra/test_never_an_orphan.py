"""Whatever happens at whichever call of a launch or a destroy, nothing is left that nobody knows of.

The faults are the simulated EC2's own: it answers with an error, or does the work and loses the answer.
A process that is killed is in test_signals.py.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from infra import cluster
from infra.cluster import Cloud
from infra.ec2 import cleanup, nodes
from infra.ec2.region import Region
from infra.errors import InfraError, Interrupted
from infra.events import Event, Removed, Retrying, ignore
from infra.interrupts import interrupts_raise
from infra.local import LocalCloud
from infra.spec import ClusterSpec


@contextmanager
def at_call(region: Region, index: int, happen: Callable[[], None]) -> Iterator[None]:
    """``happen`` right after the call number ``index`` has been answered."""
    original, count = region.call_once, 0

    def once(*arguments: Any) -> Any:
        nonlocal count
        answer = original(*arguments)
        count += 1
        if count >= index:
            happen()
        return answer

    region.call_once = once  # type: ignore[method-assign]
    try:
        yield
    finally:
        del region.call_once  # type: ignore[attr-defined]


def left(cloud: Cloud, spec: ClusterSpec) -> list[cleanup.Resource]:
    return cleanup.remaining(cloud.region, spec.name)


def roles(cloud: Cloud, spec: ClusterSpec) -> list[str]:
    return sorted(node.role for node in nodes.alive(nodes.describe(cloud.region, spec.name)))


def calls(simulation: LocalCloud, work: Callable[[], object]) -> range:
    """The indices of the calls that ``work`` makes."""
    simulation.control("DELETE", "calls")
    work()
    return range(1, len(simulation.control("GET", "calls")) + 1)


def calls_of_launch(simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec) -> range:
    found = calls(simulation, lambda: cluster.launch(simulated, spec, ignore))
    cluster.destroy(simulated, spec.name, ignore)
    return found


def every(simulation: LocalCloud, indices: Iterable[int]) -> Iterator[int]:
    """``indices``, each in an account that shows nothing of what was terminated before: it is quicker."""
    for index in indices:
        simulation.control("POST", "clock", {"advance_seconds": 7200})
        yield index


def fault(simulation: LocalCloud, **what: Any) -> None:
    simulation.control("DELETE", "calls")  # the next call is number 1
    simulation.control("POST", "faults", [what])


@pytest.mark.slow
def test_an_error_at_any_call_of_a_launch_leaves_nothing(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    outcomes = []
    launch_calls = calls_of_launch(simulation, simulated, spec)
    for index in every(simulation, launch_calls):
        fault(simulation, kind="error", code="UnauthorizedOperation", index=index)
        try:
            cluster.launch(simulated, spec, ignore)
            outcomes.append(0)
            simulation.control("DELETE", "faults")
            cluster.destroy(simulated, spec.name, ignore)
        except InfraError as error:
            outcomes.append(error.exit_status)
        simulation.control("DELETE", "faults")
        assert left(simulated, spec) == [], f"after an error at call {index}"
    # quotas and what is in use cannot be read without that permission, which is no reason not to launch;
    # nor is it one that the launch lock stays at the end
    assert set(outcomes) == {0, 3}
    assert outcomes.count(3) >= len(launch_calls) - 8


@pytest.mark.slow
def test_ctrl_c_at_any_call_of_a_launch_leaves_nothing(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    *launch_calls, last = calls_of_launch(simulation, simulated, spec)
    for index in every(simulation, (*launch_calls, last)):
        sent: list[int] = []

        def interrupt(sent: list[int] = sent) -> None:
            if not sent:
                sent.append(1)
                os.kill(os.getpid(), signal.SIGINT)

        told: list[Event] = []
        with (
            interrupts_raise(),
            at_call(simulated.region, index, interrupt),
            pytest.raises(Interrupted) as stopped,
        ):
            cluster.launch(simulated, spec, told.append)
        assert stopped.value.exit_status == 130
        assert bool(left(simulated, spec)) == (index == last), f"after Ctrl-C at call {index}"
    assert "was ready by then; sparknet-ec2 destroy --name" in str(stopped.value)
    cluster.destroy(simulated, spec.name, ignore)


@pytest.mark.parametrize("kind", ["lost", "throttle"])
def test_a_launch_whose_every_call_fails_once_succeeds_with_exactly_its_nodes(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec, kind: str
) -> None:
    simulation.control("DELETE", "calls")
    simulation.control("POST", "faults", [{"kind": kind, "index": index} for index in range(1, 200, 2)])
    told: list[Event] = []
    simulated.region.emit = told.append
    cluster.launch(simulated, spec, told.append)
    simulation.control("DELETE", "faults")
    assert roles(simulated, spec) == ["master", "worker", "worker", "worker"]
    assert sum(isinstance(event, Retrying) for event in told) >= 20
    cluster.destroy(simulated, spec.name, ignore)


@pytest.mark.parametrize("kind", ["lost", "throttle"])
def test_a_destroy_whose_every_call_fails_once_removes_everything(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec, kind: str
) -> None:
    cluster.launch(simulated, spec, ignore)
    simulation.control("DELETE", "calls")
    simulation.control("POST", "faults", [{"kind": kind, "index": index} for index in range(1, 200, 2)])
    cluster.destroy(simulated, spec.name, ignore)
    simulation.control("DELETE", "faults")
    assert left(simulated, spec) == []


def test_a_failed_launch_says_what_it_removed(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    fault(simulation, kind="error", code="UnauthorizedOperation", action="RunInstances")
    told: list[Event] = []
    with pytest.raises(InfraError, match="may not make this call"):
        cluster.launch(simulated, spec, told.append)
    kinds = [event.kind for event in told if isinstance(event, Removed)]
    assert kinds.count("instance") == 3
    assert {"security group", "launch template", "key pair"} <= set(kinds)


def test_a_failed_growth_keeps_the_cluster_that_was_ready(
    simulation: LocalCloud, simulated: Cloud, spec: ClusterSpec
) -> None:
    before = cluster.launch(simulated, spec, ignore)
    simulation.control("POST", "capacity", [{"machines": 4}])
    with pytest.raises(InfraError):
        cluster.launch(simulated, replace(spec, workers=900), ignore)
    after = cluster.find(simulated, spec.name)
    assert [node.id for node in after.nodes] == [node.id for node in before.nodes]
    cluster.destroy(simulated, spec.name, ignore)


def test_a_launch_run_again_changes_its_size_and_nothing_else(simulated: Cloud, spec: ClusterSpec) -> None:
    first = cluster.launch(simulated, spec, ignore)
    again = cluster.launch(simulated, spec, ignore)
    time.sleep(1.0)  # EC2 tells launch times in whole seconds, and the order of workers goes by them
    larger = cluster.launch(simulated, replace(spec, workers=5), ignore)
    smaller = cluster.launch(simulated, replace(spec, workers=2), ignore)
    cluster.destroy(simulated, spec.name, ignore)
    assert first.nodes == again.nodes
    assert [node.id for node in larger.workers[:3]] == [node.id for node in first.workers]
    assert len({(node.instance_type, node.zone) for node in larger.workers}) == 1
    assert [node.id for node in smaller.workers] == [node.id for node in first.workers[:2]]


def test_destroy_touches_the_named_cluster_alone(simulated: Cloud, spec: ClusterSpec) -> None:
    other = replace(spec, name=spec.name + "-other", workers=1)
    cluster.launch(simulated, spec, ignore)
    cluster.launch(simulated, other, ignore)
    cluster.destroy(simulated, spec.name, ignore)
    assert left(simulated, spec) == []
    assert roles(simulated, other) == ["master", "worker"]
    cluster.destroy(simulated, other.name, ignore)
