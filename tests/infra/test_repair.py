"""Repair: what fails is replaced and nothing else; a master that answers stays; others are bought first."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace

import pytest

from infra import cluster, provision
from infra.cluster import Cloud
from infra.ec2 import nodes
from infra.ec2.nodes import Node
from infra.ec2.tags import ClusterTags
from infra.errors import DeadlineExceeded, InfraError
from infra.events import Event, PhaseStarted, ignore
from infra.local import LocalCloud
from infra.node import checks
from infra.node.host import Result
from infra.spec import ClusterSpec
from tests.infra.conftest import Run
from tests.infra.hosts import ScriptedHost
from tests.infra.test_checks import launch as launch_scripted
from tests.infra.test_checks import scripted
from tests.infra.test_resize import Happen, Hosts, dead_disk, silent
from tests.infra.test_resize import hosts as hosts  # the fixtures
from tests.infra.test_resize import there as there

REFUSED, SILENT = "Connection refused", "timed out"
MASTER, ONE, TWO = "10.0.0.1:7077", "10.0.0.2:40000", "10.0.0.3:40000"
NAMES = {"10.0.0.1": "master", "10.0.0.2": "worker-1", "10.0.0.3": "worker-2"}


def answers(**errors: str) -> dict[str, dict[str, str]]:
    """All nodes reach all others, but for ``asker_target=error``, m, a and b being the nodes."""
    names = {"m": "master", "a": "worker-1", "b": "worker-2"}
    ports = {"m": MASTER, "a": ONE, "b": TWO}
    found = {name: {ports[other]: "" for other in ports if other != key} for key, name in names.items()}
    for pair, error in errors.items():
        asker, target = pair.split("_")
        found[names[asker]][ports[target]] = error
    return found


@pytest.mark.parametrize(
    ("told", "blamed"),
    [
        (answers(), []),
        (answers(a_b=REFUSED), ["worker-2"]),
        (answers(m_b=REFUSED, a_b=REFUSED), ["worker-2"]),
        (answers(a_m=REFUSED, b_m=REFUSED), ["master"]),
        (answers(m_b=SILENT, a_b=SILENT), ["worker-2"]),
        (answers(m_b=SILENT), ["worker-2"]),
        (answers(a_b=SILENT), ["worker-1"]),
        (answers(a_m=SILENT, a_b=SILENT), ["worker-1"]),
        (answers(a_m=SILENT), ["worker-1"]),
    ],
)
def test_who_refuses_or_is_silent_to_all_is_to_blame_and_not_who_asks(
    told: Mapping[str, Mapping[str, str]], blamed: list[str]
) -> None:
    found = checks.port_problems(told, NAMES, master="master")
    assert sorted({one.node for one in found}) == blamed


def test_the_port_of_a_dead_node_at_the_address_of_a_new_one_is_passed_over() -> None:
    told = answers()
    told["master"] = {"10.0.0.2:31000": REFUSED, ONE: "", TWO: ""}
    assert checks.port_problems(told, NAMES, master="master") == ()
    assert checks.refused({"10.0.0.2:31000": REFUSED, TWO: ""}) == {"10.0.0.2"}
    assert checks.refused({"10.0.0.2:31000": REFUSED, ONE: ""}) == set()


def test_a_worker_that_spark_shows_at_the_port_of_its_predecessor_is_not_there_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The new node has the address of the dead one, which Spark still shows as alive."""
    worker = {"state": "ALIVE", "cores": 4, "memory": 7000}
    stale = [{**worker, "host": "10.0.0.2", "port": 31000}, {**worker, "host": "10.0.0.3", "port": 40000}]
    asked: list[str] = []

    def haunted(host: ScriptedHost, _: Node) -> None:
        def page() -> str:
            asked.append("page")
            arrived = [{**worker, "host": "10.0.0.2", "port": 40000}] if len(asked) > 3 else []
            return json.dumps({"status": "ALIVE", "workers": [*stale, *arrived]})

        def reach() -> str:
            tried = host.ran[-1].partition(" reach ")[2].split()
            return json.dumps({one: REFUSED if one.endswith(":31000") else "" for one in tried})

        host.answers["GET /json/"] = page
        host.answers["checks.py reach"] = reach

    launch_scripted(scripted(haunted), [])
    assert len(asked) == 4
    asked.clear()
    monkeypatch.setattr(provision, "READY_SECONDS", 0.0)
    with pytest.raises(DeadlineExceeded, match=r"lacks worker-1 \(10.0.0.2\);"):
        launch_scripted(scripted(haunted), [])


def alive(cloud: Cloud, name: str) -> list[str]:
    return [node.id for node in nodes.alive(nodes.describe(cloud.region, name))]


def fail_at(script: str) -> Happen:
    def fail(host: ScriptedHost, _: Node) -> None:
        failed = Result(exit_status=3, stdout="", stderr="no room at all")
        host.answers = {script: failed, **host.answers}

    return fail


def test_a_worker_stays_where_no_other_can_be_had(
    run: Run, simulation: LocalCloud, simulated: Cloud, hosts: Hosts, there: cluster.Cluster
) -> None:
    hosts.happen = {there.workers[0].id: silent}
    simulation.control("POST", "capacity", [{"machines": 0}])
    status, _, err = run("repair", there.name)
    assert (status, "No capacity" in err) == (5, True), err
    assert alive(simulated, there.name) == [node.id for node in there.nodes]


def test_the_replacement_is_bought_before_the_old_node_is_ended(
    run: Run, simulation: LocalCloud, hosts: Hosts, there: cluster.Cluster
) -> None:
    hosts.happen = {there.workers[0].id: dead_disk}
    simulation.control("DELETE", "calls")
    assert run("repair", there.name)[0] == 0
    actions = [call["action"] for call in simulation.control("GET", "calls")]
    assert actions.index("CreateFleet") < actions.index("TerminateInstances")


def test_a_master_that_answers_is_not_ended_whatever_is_wrong_with_it(
    run: Run, simulated: Cloud, hosts: Hosts, there: cluster.Cluster
) -> None:
    assert there.master is not None
    hosts.happen = {there.master.id: fail_at("10-system.sh")}
    status, _, err = run("repair", there.name)
    assert (status, "no room at all" in err) == (6, True), err
    assert alive(simulated, there.name) == [node.id for node in there.nodes]
    hosts.happen[there.workers[0].id] = silent
    assert run("repair", there.name)[0] == 6  # the worker is replaced, the master's trouble stays
    left = alive(simulated, there.name)
    assert there.master.id in left
    assert there.workers[1].id in left


def test_a_master_that_does_not_answer_is_replaced_by_one_other(
    run: Run, simulated: Cloud, hosts: Hosts, there: cluster.Cluster
) -> None:
    assert there.master is not None
    hosts.happen = {there.master.id: silent}
    status, _, err = run("repair", there.name)
    assert status == 0, err
    found = nodes.alive(nodes.describe(simulated.region, there.name))
    assert [node.role for node in found] == ["master", "worker", "worker"]
    assert found[0].id != there.master.id
    assert {node.id for node in found[1:]} == {node.id for node in there.workers}


def test_workers_start_again_with_a_new_master_even_at_the_address_of_the_old_one() -> None:
    """They would go on asking for the old one, with its secret, and never be let in."""

    def commands(secret: str) -> list[str]:
        ran: list[ScriptedHost] = []

        def remember(host: ScriptedHost, _: Node) -> None:
            host.answers = {"conf/secret'": secret, "conf/secret": secret, **host.answers}
            ran.append(host)

        launch_scripted(scripted(remember), [])
        return [one for host in ran for one in host.ran if "sparknet-worker.service sparknet-worker" in one]

    assert [one.rpartition(" ")[2] for one in commands("")] == ["again", "again"]
    assert [one.rpartition(" ")[2] for one in commands("s" * 64)] == ["sparknet-worker"] * 2


def test_a_volume_that_was_detached_is_noticed_by_status_launch_and_every_repair(
    run: Run, simulated: Cloud, hosts: Hosts, there: cluster.Cluster
) -> None:
    worker = there.workers[1]
    simulated.region.change("detach_volume", VolumeId=worker.volumes[0], InstanceId=worker.id, Force=True)
    sentence = "0 of its 1 volumes are attached: one was detached"
    for _ in range(2):
        assert f"TROUBLE: worker-2     disk      {sentence}" in run("status", there.name)[1]
        status, _, err = run("launch", "-s", "2", "--name", there.name)
        assert (status, f"worker-2: {sentence}; sparknet-ec2 repair --name {there.name}" in err) == (6, True)
    assert run("repair", there.name)[0] == 0
    left = alive(simulated, there.name)
    assert worker.id not in left
    assert {there.nodes[0].id, there.workers[0].id} < set(left)
    assert "TROUBLE" not in run("status", there.name)[1]


def test_a_second_master_that_a_killed_repair_left_is_ended_by_the_next_launch(
    simulated: Cloud, there: cluster.Cluster
) -> None:
    time.sleep(1.0)  # EC2 tells launch times in whole seconds, and the first master is the cluster's
    tags = ClusterTags.new(there.name, "x", max_hours=1, extra={})
    simulated.region.change(
        "run_instances", MinCount=1, MaxCount=1, InstanceType="m6i.large", ImageId=there.nodes[0].image,
        TagSpecifications=tags.specification(("instance",), "master"),
    )  # fmt: skip
    assert len(alive(simulated, there.name)) == 4
    cluster.launch(simulated, ClusterSpec(name=there.name, workers=2), ignore)
    assert alive(simulated, there.name) == [node.id for node in there.nodes]


@pytest.mark.parametrize("moment", ["boot", "prepare"])
def test_a_launch_whose_nodes_somebody_ends_says_so_at_once(
    simulated: Cloud, hosts: Hosts, spec: ClusterSpec, moment: str
) -> None:
    object.__setattr__(simulated, "login_seconds", 120.0)

    def destroy(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase == moment:
            left = alive(simulated, spec.name)
            hosts.happen = dict.fromkeys(left, silent)
            nodes.terminate(simulated.region, left)

    began = time.monotonic()
    with pytest.raises(InfraError, match=r"Somebody ended i-|has ended \(Client\.UserInitiatedShutdown\)"):
        cluster.launch(simulated, replace(spec, workers=1), destroy)
    assert time.monotonic() - began < 60
    assert alive(simulated, spec.name) == []
