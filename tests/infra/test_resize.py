"""The verbs about a cluster that is there: its size, its repair, its sleep, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra import bill, cluster, costs
from infra.cluster import Cloud
from infra.ec2 import nodes
from infra.ec2.nodes import Node
from infra.errors import HostUnreachable
from infra.events import ignore
from infra.local import LocalCloud
from infra.spec import ClusterSpec
from tests.infra.conftest import Run
from tests.infra.hosts import ScriptedCluster, ScriptedHost

Happen = Callable[[ScriptedHost, Node], None]


class Hosts(ScriptedCluster):
    """All is well with them, but for what ``happen`` does to the node of that id."""

    def __init__(self) -> None:
        super().__init__()
        self.happen: dict[str, Happen] = {}

    def connect(self, node: Node) -> ScriptedHost:
        host = super().connect(node)
        self.happen.get(node.id, lambda *_: None)(host, node)
        return host


@pytest.fixture
def hosts(simulated: Cloud) -> Hosts:
    """The hosts of ``simulated``."""
    made = Hosts()
    object.__setattr__(simulated, "connect", made.connect)
    object.__setattr__(simulated, "login_seconds", 0.05)
    return made


@pytest.fixture
def there(simulated: Cloud, hosts: Hosts, spec: ClusterSpec) -> Iterator[cluster.Cluster]:
    """A ready cluster of two workers."""
    yield cluster.launch(simulated, replace(spec, workers=2), ignore)
    cluster.destroy(simulated, spec.name, ignore)


def silent(host: ScriptedHost, node: Node) -> None:
    def refuse() -> str:
        raise HostUnreachable(node.name, "does not answer")

    host.answers = {"": refuse}


def dead_disk(host: ScriptedHost, _: Node) -> None:
    folder = {"path": "/mnt/sparknet/spill0/spark", "mount_point": "/mnt/sparknet/spill0"}
    host.answers["checks.py disks"] = json.dumps({"folders": [{**folder, "error": "Input/output error"}]})


def alive(cloud: Cloud, name: str) -> list[str]:
    return [node.name for node in nodes.alive(nodes.describe(cloud.region, name))]


def test_workers_are_added_and_taken_away(run: Run, simulated: Cloud, there: cluster.Cluster) -> None:
    status, out, err = run("add-slaves", there.name, "--num-slaves", "2")
    assert (status, "a master and 4 workers" in out) == (0, True), err
    assert run("remove-slaves", "--name", there.name, "--num-slaves", "3")[0] == 0
    assert alive(simulated, there.name) == ["master", "worker-1"]
    status, _, err = run("remove-slaves", "--name", there.name)
    assert (status, "one has to stay" in err) == (2, True)
    assert run("add-slaves", there.name)[0] == 0
    assert alive(simulated, there.name) == ["master", "worker-1", "worker-5"]  # who is gone stays gone


def test_names_are_tags_and_a_replacement_takes_that_of_the_lost_one(
    run: Run, simulated: Cloud, there: cluster.Cluster
) -> None:
    first, second = there.workers
    assert [node.tags["sparknet:node"] for node in there.workers] == ["worker-1", "worker-2"]
    assert second.tags["Name"] == f"{there.name}-worker-2"
    nodes.terminate(simulated.region, [first.id])
    [left] = cluster.find(simulated, there.name).workers
    assert (left.id, left.name) == (second.id, "worker-2")
    status, _, err = run("launch", "-s", "2", there.name)
    assert status == 0, err
    found = cluster.find(simulated, there.name)
    assert [node.name for node in found.workers] == ["worker-1", "worker-2"]
    assert found.workers[1].id == second.id


def test_shrinking_takes_the_lost_then_the_idle_and_asks_before_it_takes_the_busy(
    run: Run, simulated: Cloud, hosts: Hosts, there: cluster.Cluster
) -> None:
    assert run("add-slaves", there.name, "--num-slaves", "2")[0] == 0
    grown = cluster.find(simulated, there.name)
    hosts.busy = {grown.workers[number].private_ip for number in (0, 2, 3)}
    nodes.terminate(simulated.region, [grown.workers[0].id])
    status, out, err = run("remove-slaves", there.name, "--num-slaves", "2")
    assert (status, "worker-1, worker-2 of" in out) == (0, True), err
    assert "worker-1 (lost), worker-2 (spot, idle)" in err
    assert alive(simulated, there.name) == ["master", "worker-3", "worker-4"]
    status, _, err = run("remove-slaves", there.name)
    assert (status, "worker-4 under the job that runs there" in err, "--yes" in err) == (2, True, True)
    status, _, err = run("launch", "-s", "1", there.name)
    assert (status, "--yes" in err) == (2, True)
    assert alive(simulated, there.name) == ["master", "worker-3", "worker-4"]
    assert run("remove-slaves", there.name, "--yes")[0] == 0
    assert alive(simulated, there.name) == ["master", "worker-3"]
    decommissioned = [
        one.name for one in hosts.hosts.values() if any("decommission.sh" in c for c in one.ran)
    ]
    assert sorted(decommissioned) == ["worker-2", "worker-4"]


def test_shrinking_does_nothing_on_the_nodes_that_stay(
    run: Run, hosts: Hosts, there: cluster.Cluster
) -> None:
    for host in hosts.hosts.values():
        host.ran.clear()
    assert run("remove-slaves", there.name)[0] == 0
    assert not hosts.hosts["worker-1"].ran
    assert [one for one in hosts.hosts["master"].ran if "GET /json/" not in one] == []


def test_status_names_the_mount_that_is_dead_and_the_node_that_is_silent(
    run: Run, hosts: Hosts, there: cluster.Cluster
) -> None:
    first, second = there.workers
    hosts.happen = {first.id: dead_disk, second.id: silent}
    status, out, _ = run("status", there.name)
    assert status == 0
    assert (
        "TROUBLE: worker-1     disk      /mnt/sparknet/spill0 is dead: /mnt/sparknet/spill0/spark cannot be "
        "written to (Input/output error)\n"
    ) in out
    assert "TROUBLE: worker-2     answer    does not answer\n" in out
    assert f"sparknet-ec2 repair --name {there.name}" in out
    troubles = json.loads(run("status", there.name, "--json")[1])["troubles"]
    assert [(one["node"], one["check"]) for one in troubles] == [("worker-1", "disk"), ("worker-2", "answer")]


def full_disk(host: ScriptedHost, _: Node) -> None:
    folder = {"path": "/mnt/sparknet/spill0/spark", "mount_point": "/mnt/sparknet/spill0"}
    told = {"volume": "vol-0a1b", "filled_by": "7.9 GiB in /mnt/sparknet/spill0/junk"}
    error = {"error": "No space left on device"}
    host.answers["checks.py disks"] = json.dumps({"folders": [{**folder, **told, **error}]})


def test_a_job_is_not_started_where_a_disk_is_full_and_what_fills_it_is_named(
    run: Run, hosts: Hosts, there: cluster.Cluster, tmp_path: Path
) -> None:
    program = tmp_path / "mine.py"
    program.write_text("print('mine')\n")
    hosts.happen = {there.workers[1].id: full_disk}
    status, _, err = run("submit", "--name", there.name, str(program))
    assert status == 6
    assert "worker-2     disk      /mnt/sparknet/spill0 (vol-0a1b) is full (7.9 GiB in" in err
    assert "/mnt/sparknet/spill0/junk)" in err
    assert not [command for host in hosts.hosts.values() for command in host.ran if "start.sh" in command]


def test_repair_replaces_who_fails_and_who_is_gone_and_nobody_else(
    run: Run, simulated: Cloud, hosts: Hosts, there: cluster.Cluster
) -> None:
    assert there.master is not None
    first, second = there.workers
    hosts.happen = {second.id: silent}
    status, out, err = run("repair", there.name)
    assert (status, "a master and 2 workers" in out) == (0, True), err
    found = cluster.find(simulated, there.name)
    assert found.master is not None
    assert found.master.id == there.master.id
    assert [node.id == first.id for node in found.workers] == [True, False]
    hosts.happen = {found.workers[1].id: dead_disk}  # which no plan of disks would notice
    assert run("repair", there.name)[0] == 0
    again = cluster.find(simulated, there.name)
    assert [node.id in {first.id, found.workers[1].id} for node in again.workers] == [True, False]
    nodes.terminate(simulated.region, [again.workers[1].id])
    assert run("repair", there.name)[0] == 0
    assert alive(simulated, there.name) == ["master", "worker-1", "worker-2"]


def test_spot_machines_are_not_stopped_and_the_reason_is_told(run: Run, there: cluster.Cluster) -> None:
    status, _, err = run("stop", there.name)
    assert status == 2
    assert "worker-1, worker-2 of" in err
    assert "are spot instances of an instant fleet: EC2 can end them, and cannot stop them" in err
    assert f"sparknet-ec2 remove-slaves --num-slaves 1 --name {there.name}" in err
    assert f"sparknet-ec2 destroy --name {there.name}" in err
    assert "sparknet-ec2 launch --on-demand" in err


def test_machines_bought_on_demand_are_stopped_and_started(
    run: Run, simulation: LocalCloud, simulated: Cloud, hosts: Hosts, spec: ClusterSpec
) -> None:
    simulation.control("POST", "capacity", [{"purchase": "spot", "machines": 0}])
    status, out, err = run("plan", "-s", "2", "--on-demand", "--name", spec.name)
    assert (status, "of one of these pools, on demand" in out) == (0, True), err
    status, _, err = run("launch", "-s", "2", "--on-demand", "--name", spec.name)
    assert status == 0, err
    before = cluster.find(simulated, spec.name)
    status, out, err = run("stop", spec.name)
    assert (status, "is stopped: 3 machines" in out) == (0, True), err
    assert {node.state for node in cluster.find(simulated, spec.name).nodes} == {"stopped"}
    assert run("stop", spec.name)[0] == 0  # once more changes nothing
    hosts.started.clear()
    status, out, err = run("start", spec.name)
    assert (status, "is ready: a master and 2 workers" in out) == (0, True), err
    after = cluster.find(simulated, spec.name)
    assert [node.id for node in after.nodes] == [node.id for node in before.nodes]
    assert {node.state for node in after.nodes} == {"running"}
    cluster.destroy(simulated, spec.name, ignore)


def test_a_stopped_cluster_costs_its_volumes_alone_and_what_it_cost_before_is_not_forgotten(
    run: Run, simulation: LocalCloud, simulated: Cloud, hosts: Hosts, spec: ClusterSpec
) -> None:
    def cost() -> costs.Cost:
        found = bill.look(simulated, spec.name)
        assert found is not None
        return found.cost

    machines = 0.096 + 0.8048 + 2 * 0.005
    assert run("launch", "-s", "1", "--on-demand", "-t", "g6.xlarge", "--name", spec.name)[0] == 0
    running = cost().per_hour
    for number in (1, 2):
        simulation.control("POST", "clock", {"advance_seconds": 2 * 3600})
        assert run("stop", spec.name)[0] == 0
        assert cost().per_hour == pytest.approx(running - machines)
        assert cost().ended == pytest.approx(number * 2 * machines, rel=0.02)
        simulation.control("POST", "clock", {"advance_seconds": 3 * 3600})
        assert cost().ended == pytest.approx(number * 2 * machines, rel=0.02)
        hosts.started.clear()
        status, _, err = run("start", spec.name)
        assert status == 0, err
    assert cost().per_hour == pytest.approx(running)
    cluster.destroy(simulated, spec.name, ignore)


def test_a_price_for_spot_machines_and_none_of_them_do_not_go_together(run: Run) -> None:
    status, _, err = run("plan", "--on-demand", "--spot-price", "0.5")
    assert (status, "of which --on-demand buys none; leave out one of them" in err) == (2, True)


def test_a_stopped_cluster_whose_hours_are_over_is_not_started_to_end_itself(
    run: Run, simulation: LocalCloud, simulated: Cloud, hosts: Hosts, spec: ClusterSpec
) -> None:
    simulation.control("POST", "capacity", [{"purchase": "spot", "machines": 0}])
    words = ("launch", "-s", "1", "--fallback", "on-demand", "--max-hours", "2", "--name", spec.name)
    assert run(*words)[0] == 0
    assert run("stop", spec.name)[0] == 0
    simulation.control("POST", "clock", {"advance_seconds": 3 * 3600})
    status, _, err = run("start", spec.name)
    assert (status, f"The --max-hours of {spec.name} were over at" in err) == (2, True)
    assert {node.state for node in cluster.find(simulated, spec.name).nodes} == {"stopped"}
    cluster.destroy(simulated, spec.name, ignore)


def test_a_stopped_cluster_is_destroyed(
    run: Run, simulation: LocalCloud, simulated: Cloud, hosts: Hosts, spec: ClusterSpec
) -> None:
    simulation.control("POST", "capacity", [{"purchase": "spot", "machines": 0}])
    assert run("launch", "-s", "1", "--fallback", "on-demand", "--name", spec.name)[0] == 0
    assert run("stop", spec.name)[0] == 0
    status, out, _ = run("destroy", spec.name, "-y")
    assert (status, "0 resources left." in out) == (0, True)


def test_pages_that_do_not_answer_are_not_named(run: Run, there: cluster.Cluster) -> None:
    status, out, err = run("ui", "--name", there.name)
    assert status != 0
    assert "http" not in out
    assert f"No page of {there.name} answers" in err
