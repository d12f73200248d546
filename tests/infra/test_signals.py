"""Real signals to a real process, at any call of a launch or a destroy: nothing is left that nobody knows of.

SPARKNET_EVERY_CALL=1 pytest -m slow tests/infra/test_signals.py    at every call instead of at some of them
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from infra.cluster import Cloud
from infra.ec2 import cleanup, nodes
from infra.local import LocalCloud
from tests.infra.fork_server import DESTROY, LAUNCH, ForkServer

EVERY_CALL = bool(os.environ.get("SPARKNET_EVERY_CALL"))
SAMPLE = 3
MOMENTS = pytest.mark.parametrize("before", [False, True], ids=["after the work", "before the work"])


@pytest.fixture(scope="module")
def server(simulation: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    made = ForkServer(simulation, tmp_path_factory.mktemp("fork-server"))
    yield made
    made.end()


@pytest.fixture(scope="module")
def launch_calls(server: ForkServer) -> int:
    """How many calls an undisturbed launch makes."""
    server.run_with([], *LAUNCH, "counted")
    count = len(server.cloud.control("GET", "calls"))
    assert server.run(*DESTROY, "counted").status == 0
    assert count > 15
    return count


def some(server: ForkServer, calls: int) -> Iterator[int]:
    """Indices of calls: all of them if asked for, otherwise a few, always the same.

    At each the account shows nothing of what was terminated before: that is quicker.
    """
    everything = range(1, calls + 1)
    few = sorted(random.Random(calls).sample(everything, min(SAMPLE, calls)))
    for index in everything if EVERY_CALL else few:
        server.cloud.control("POST", "clock", {"advance_seconds": 7200})
        yield index


def signalled(name: str, index: int, *, before: bool = False) -> list[dict[str, object]]:
    return [{"kind": "signal", "signal": name, "index": index, "before": before}]


def left(cloud: Cloud, name: str) -> list[cleanup.Resource]:
    return cleanup.remaining(cloud.region, name)


def roles(cloud: Cloud, name: str) -> list[str]:
    return sorted(node.role for node in nodes.alive(nodes.describe(cloud.region, name)))


@pytest.mark.slow
@MOMENTS
def test_a_launch_killed_at_any_call_is_finished_by_the_next_and_removed_by_destroy(
    server: ForkServer, simulated: Cloud, launch_calls: int, before: bool
) -> None:
    for index in some(server, launch_calls):
        killed = server.run_with(signalled("SIGKILL", index, before=before), *LAUNCH, "killed")
        assert killed.status == -9, f"at call {index}: {killed.err}"
        again = server.run(*LAUNCH, "killed")
        assert again.status == 0, f"after a kill at call {index}: {again.err}"
        assert roles(simulated, "killed") == ["master", "worker", "worker"], f"after a kill at call {index}"
        gone = server.run(*DESTROY, "killed")
        assert (gone.status, left(simulated, "killed")) == (0, []), f"at call {index}: {gone.err}"
        assert "0 resources left" in gone.out


@pytest.mark.slow
@MOMENTS
def test_a_launch_killed_at_any_call_can_be_destroyed_from_another_machine(
    server: ForkServer, simulated: Cloud, launch_calls: int, before: bool
) -> None:
    for index in some(server, launch_calls):
        killed = server.run_with(signalled("SIGKILL", index, before=before), *LAUNCH, "killed")
        assert killed.status == -9, f"at call {index}: {killed.err}"
        gone = server.run(*DESTROY, "killed", home="elsewhere")
        assert (gone.status, left(simulated, "killed")) == (0, []), f"at call {index}: {gone.err}"


@pytest.mark.slow
@MOMENTS
def test_a_destroy_killed_at_any_call_is_finished_by_the_next(
    server: ForkServer, simulated: Cloud, before: bool
) -> None:
    server.run(*LAUNCH, "killed")
    server.run_with([], *DESTROY, "killed")
    for index in some(server, len(server.cloud.control("GET", "calls"))):
        server.run(*LAUNCH, "killed")
        killed = server.run_with(signalled("SIGKILL", index, before=before), *DESTROY, "killed")
        assert killed.status in (-9, 0), killed.err  # a wait may take fewer calls the next time
        assert server.run(*DESTROY, "killed").status == 0
        assert left(simulated, "killed") == [], f"killed at call {index}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_launch_interrupted_at_any_call_leaves_nothing_and_says_so(
    server: ForkServer, simulated: Cloud, launch_calls: int, name: str
) -> None:
    for index in some(server, launch_calls - 1):  # at the last one it is ready
        ended = server.run_with(signalled(name, index), *LAUNCH, "stopped")
        assert ended.status == 130, f"at call {index}: {ended.err}"
        assert f"stopped by {name}" in ended.err
        assert left(simulated, "stopped") == [], f"{name} at call {index}: {ended.err}"
        has_begun = "removing what it made" in ended.err
        assert has_begun == ("0 resources left" in ended.err), ended.err
        assert "Traceback" not in ended.err


@pytest.mark.slow
def test_a_destroy_interrupted_at_any_call_says_how_to_go_on(server: ForkServer, simulated: Cloud) -> None:
    server.run(*LAUNCH, "stopped")
    server.run_with([], *DESTROY, "stopped")
    for index in some(server, len(server.cloud.control("GET", "calls"))):
        server.run(*LAUNCH, "stopped")
        ended = server.run_with(signalled("SIGTERM", index), *DESTROY, "stopped")
        assert ended.status in (130, 0), ended.err
        if ended.status and left(simulated, "stopped") and "remove" in ended.err:
            assert "sparknet-ec2 destroy --name stopped --cloud aws --region us-east-1" in ended.err
        assert server.run(*DESTROY, "stopped").status == 0
        assert left(simulated, "stopped") == []


INTERRUPTED = {"kind": "signal", "signal": "SIGINT"}


def test_a_second_ctrl_c_is_told_that_the_undo_goes_on(server: ForkServer, simulated: Cloud) -> None:
    faults = [{**INTERRUPTED, "action": action} for action in ("CreateFleet", "TerminateInstances")]
    ended = server.run_with(faults, *LAUNCH, "twice")
    assert ended.status == 130
    assert "SIGINT: still removing what was made of twice" in ended.err
    assert "0 resources left" in ended.err
    assert left(simulated, "twice") == []


@pytest.mark.slow
def test_a_third_ctrl_c_leaves_at_once_with_the_command_that_removes_the_rest(
    server: ForkServer, simulated: Cloud
) -> None:
    faults = [
        *({**INTERRUPTED, "action": action} for action in ("CreateFleet", "DescribeSpotInstanceRequests")),
        {"kind": "delay", "action": "DescribeVolumes", "seconds": 2.5},  # time to read the answer
        {**INTERRUPTED, "action": "DeleteSecurityGroup"},
    ]
    ended = server.run_with(faults, *LAUNCH, "thrice")
    assert ended.status == 130
    assert "before all of thrice was removed" in ended.err
    _, _, told = ended.err.partition("; sparknet-ec2 ")
    words = told.partition(" removes the rest")[0].split()
    assert left(simulated, "thrice") != []
    assert server.run(*words, "--yes").status == 0
    assert left(simulated, "thrice") == []


def test_of_two_launches_of_one_name_at_once_the_second_steps_back(
    server: ForkServer, simulated: Cloud
) -> None:
    first = server.command(*LAUNCH, "twin", home="one")
    second = server.command(*LAUNCH, "twin", home="two")
    server.cloud.control("POST", "faults", [{"kind": "delay", "action": "CreateFleet", "seconds": 2}])
    first.go()
    second.go()
    ended = sorted((first.wait(), second.wait()), key=lambda one: one.status)
    server.cloud.control("DELETE", "faults")
    assert [one.status for one in ended] == [0, 2], [one.err for one in ended]
    assert "A launch of twin is under way, by " in ended[1].err
    assert "remov" not in ended[1].err
    assert roles(simulated, "twin") == ["master", "worker", "worker"]
    assert server.run(*DESTROY, "twin", home="one").status == 0
    assert left(simulated, "twin") == []


def test_a_launch_killed_elsewhere_is_respected_until_it_is_destroyed(
    server: ForkServer, simulated: Cloud
) -> None:
    kill = {"kind": "signal", "action": "CreateFleet"}
    assert server.run_with([kill], *LAUNCH, "abandoned", home="one").status == -9
    refused = server.run(*LAUNCH, "abandoned", home="two")
    assert (refused.status, "is under way, by " in refused.err) == (2, True)
    assert "worker" in roles(simulated, "abandoned")
    assert server.run(*DESTROY, "abandoned", home="two").status == 0
    assert left(simulated, "abandoned") == []


def test_a_terminal_that_closes_does_not_cut_the_undo_short(server: ForkServer, simulated: Cloud) -> None:
    """The kernel sends SIGHUP, and whatever is written from then on fails."""
    master, slave = os.openpty()
    server.cloud.control("POST", "faults", [{"kind": "delay", "action": "RunInstances", "seconds": 1}])
    launch = server.command(*LAUNCH, "closed", terminal=os.ttyname(slave))
    os.close(slave)
    launch.go()
    said = b""
    while b"launched 2" not in said:
        said += os.read(master, 1000)
    os.close(master)
    assert launch.wait().status == 130
    assert left(simulated, "closed") == []
