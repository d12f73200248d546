"""A node that fails while a cluster comes up: its step again, then another node, then teardown."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from infra import cluster
from infra.cluster import Cloud
from infra.ec2 import cleanup, keys, nodes
from infra.ec2.nodes import Node
from infra.errors import ChecksFailed, HostRejectedLogin, HostsFailed, HostUnreachable
from infra.events import Event, NodeReplaced, PhaseEnded
from infra.node import command_log
from infra.node.host import Result
from infra.spec import ClusterSpec
from tests.infra.hosts import ScriptedCluster, ScriptedHost, account_of

Happen = Callable[[ScriptedHost, Node], None]


def with_hosts(cloud: Cloud, happen: Happen) -> Cloud:
    """The cloud, whose hosts do all right but for what ``happen`` does to them."""
    hosts = ScriptedCluster()

    def connect(node: Node) -> ScriptedHost:
        host = hosts.connect(node)
        happen(host, node)
        return host

    return replace(cloud, connect=connect, login_seconds=0.05)


class Bad:
    """Does ``what`` to the first workers it meets, as many as ``count``; ``ids`` are those."""

    def __init__(self, what: Happen, count: int = 1, role: str = "worker") -> None:
        self.what, self.count, self.role = what, count, role
        self.ids: list[str] = []

    def __call__(self, host: ScriptedHost, node: Node) -> None:
        if node.role == self.role and len(self.ids) < self.count and node.id not in self.ids:
            self.ids.append(node.id)
        if node.id in self.ids:
            self.what(host, node)


def cut_off(host: ScriptedHost, node: Node) -> None:
    def silence() -> str:
        raise HostUnreachable(node.name, f"{node.public_ip}:22 does not answer")

    host.answers = {"": silence}


def failing(script: str) -> Happen:
    def fail(host: ScriptedHost, _: Node) -> None:
        others = {key: answer for key, answer in host.answers.items() if key != script}
        host.answers = {script: Result(exit_status=3, stdout="", stderr="no room\nat all"), **others}

    return fail


def blind(host: ScriptedHost, _: Node) -> None:
    host.answers["checks.py facts"] = lambda: json.dumps(json.loads(account_of(host)) | {"gpus": []})


def dead_spark(host: ScriptedHost, _: Node) -> None:
    host.answers["sparknet-worker.service sparknet-worker"] = ""
    host.answers["sparknet-worker.service.log"] = "no java at all"


def replaced(events: list[Event]) -> list[str]:
    return [event.id for event in events if isinstance(event, NodeReplaced)]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        pytest.param(cut_off, "does not answer; it was tried for 0.05 s", id="cut off"),
        pytest.param(failing("30-python.sh"), "30-python.sh` ended with status 3: no room", id="script"),
        pytest.param(failing("disk-facts.sh"), "disk-facts.sh` ended with status 3", id="disk"),
        pytest.param(blind, "torch sees 0 of 1", id="gpu"),
    ],
)
def test_a_worker_that_fails_is_replaced_and_the_others_stay(
    simulated: Cloud, spec: ClusterSpec, what: Happen, reason: str
) -> None:
    events: list[Event] = []
    bad = Bad(what)
    made = cluster.launch(with_hosts(simulated, bad), spec, events.append)
    assert replaced(events) == bad.ids
    assert [reason in event.why for event in events if isinstance(event, NodeReplaced)] == [True]
    assert len(made.workers) == spec.workers
    assert not set(bad.ids) & {node.id for node in made.workers}
    launched = [node.id for node in nodes.describe(simulated.region, spec.name)]
    assert len(launched) == spec.nodes + 1  # nobody else was replaced
    phases = [event.phase for event in events if isinstance(event, PhaseEnded)]
    assert (phases.count("buy"), phases[-1]) == (2, "verify")
    cluster.destroy(simulated, spec.name, events.append)


def test_a_worker_whose_spark_does_not_come_up_is_replaced(
    simulated: Cloud, spec: ClusterSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.provision.READY_SECONDS", 0.2)
    events: list[Event] = []
    bad = Bad(dead_spark)
    cluster.launch(with_hosts(simulated, bad), spec, events.append)
    (event,) = (one for one in events if isinstance(one, NodeReplaced))
    assert event.id in bad.ids
    assert "Spark's master is ALIVE after 0.2 s, and lacks worker-" in event.why
    cluster.destroy(simulated, spec.name, events.append)


def test_a_master_that_fails_is_replaced_by_another_one(simulated: Cloud, spec: ClusterSpec) -> None:
    events: list[Event] = []
    bad = Bad(cut_off, role="master")
    made = cluster.launch(with_hosts(simulated, bad), spec, events.append)
    assert replaced(events) == bad.ids
    assert made.master is not None
    assert made.master.id not in bad.ids
    cluster.destroy(simulated, spec.name, events.append)


def test_a_step_that_fails_once_is_tried_again_and_nobody_is_replaced(
    simulated: Cloud, spec: ClusterSpec
) -> None:
    failed: set[str] = set()

    def once(host: ScriptedHost, _: Node) -> None:
        def fail() -> str:
            if host.name not in failed:
                failed.add(host.name)
                raise HostUnreachable(host.name, "the connection was lost")
            return ""

        host.answers = {"40-spark.sh": fail, **host.answers}

    events: list[Event] = []
    cluster.launch(with_hosts(simulated, once), spec, events.append)
    assert (len(failed), replaced(events)) == (spec.nodes, [])
    cluster.destroy(simulated, spec.name, events.append)


def test_nodes_that_go_on_failing_end_the_launch_with_their_last_lines(
    simulated: Cloud, spec: ClusterSpec
) -> None:
    events: list[Event] = []
    bad = OneThenItsSuccessor(failing("40-spark.sh"))
    with pytest.raises(HostsFailed, match=r"(?s)1 of 4 nodes failed.*40-spark.sh.*no room.*at all"):
        cluster.launch(with_hosts(simulated, bad), spec, events.append)
    assert len(replaced(events)) == 1
    assert cleanup.remaining(simulated.region, spec.name) == []
    folder = command_log.folder_of(simulated.home, simulated.region.name, spec.name)
    [file] = folder.glob(f"*{bad.ids[-1]}.log")
    assert "no room" in file.read_text()


class OneThenItsSuccessor(Bad):
    """The same for the first worker of three, and for the one that comes in its place."""

    def __init__(self, what: Happen) -> None:
        super().__init__(what)
        self.met: list[str] = []

    def __call__(self, host: ScriptedHost, node: Node) -> None:
        if node.role == self.role and node.id not in self.met:
            self.met.append(node.id)
            if len(self.met) in (1, 4):
                self.ids.append(node.id)
        if node.id in self.ids:
            self.what(host, node)


def test_as_many_are_replaced_as_the_user_allows(simulated: Cloud, spec: ClusterSpec) -> None:
    events: list[Event] = []
    with pytest.raises(ChecksFailed, match="1 of 4 nodes"):
        cluster.launch(with_hosts(simulated, Bad(blind)), replace(spec, replacements=0), events.append)
    assert replaced(events) == []
    two = with_hosts(simulated, Bad(blind, count=2))
    cluster.launch(two, replace(spec, replacements=2), events.append)
    assert len(replaced(events)) == 2
    cluster.destroy(simulated, spec.name, events.append)


def test_what_all_nodes_fail_at_is_not_cured_by_other_nodes(simulated: Cloud, spec: ClusterSpec) -> None:
    def refuse(host: ScriptedHost, node: Node) -> None:
        def no() -> str:
            raise HostRejectedLogin(node.name, "wrong key")

        host.answers = {"": no}

    events: list[Event] = []
    with pytest.raises(HostsFailed, match="4 of 4 nodes failed") as failed:
        cluster.launch(with_hosts(simulated, refuse), replace(spec, replacements=99), events.append)
    assert "wrong key; it was tried for 0.0125 s" in str(failed.value)
    assert replaced(events) == []
    assert cleanup.remaining(simulated.region, spec.name) == []


def test_a_node_of_a_ready_cluster_is_never_ended_by_a_launch(simulated: Cloud, spec: ClusterSpec) -> None:
    events: list[Event] = []
    made = cluster.launch(simulated, spec, events.append)
    with pytest.raises(HostsFailed):
        cluster.launch(with_hosts(simulated, Bad(cut_off)), spec, events.append)
    assert cluster.find(simulated, spec.name).nodes == made.nodes
    cluster.destroy(simulated, spec.name, events.append)


def test_the_key_of_a_replaced_node_is_forgotten(simulated: Cloud) -> None:
    file = keys.known_hosts_file(simulated.home, "us-east-1", "c")
    file.parent.mkdir(parents=True)
    file.write_text("203.0.113.1 ssh-ed25519 AA\n203.0.113.10 ssh-ed25519 BB\n10.0.0.1 ssh-ed25519 CC\n")
    keys.forget_hosts(simulated.home, "us-east-1", "c", ["203.0.113.1", "10.0.0.1"])
    assert file.read_text() == "203.0.113.10 ssh-ed25519 BB\n"
