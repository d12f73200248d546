"""What ends a cluster, and how that is changed while it runs."""

from __future__ import annotations

import base64
import gzip
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra import cluster, lifetime
from infra.cluster import Cloud
from infra.ec2 import network, nodes, template
from infra.ec2.lifetime import Lifetime
from infra.ec2.nodes import Node
from infra.errors import HostsFailed, HostUnreachable, UsageError
from infra.events import Note, ignore
from infra.node import user_data
from infra.node.host import Host
from infra.spec import ClusterSpec
from tests.infra.conftest import Run
from tests.infra.hosts import ScriptedCluster
from tests.infra.test_user_data import EXPIRES, SPEC, parts

LATER = EXPIRES + timedelta(hours=4)


def of(cloud: Cloud, name: str) -> list[Lifetime]:
    """What the tags of the group and of each node say."""
    group = network.find_group(cloud.region, name)
    assert group is not None
    living = nodes.alive(nodes.describe(cloud.region, name))
    return [group.lifetime, *(Lifetime.of(node.tags) for node in living)]


def template_of(cloud: Cloud, name: str) -> dict[str, Any]:
    made = template.find(cloud.region, name)
    assert made is not None
    answer = cloud.region.read(
        "describe_launch_template_versions", LaunchTemplateId=made, Versions=["$Latest"]
    )
    return dict(answer["LaunchTemplateVersions"][0]["LaunchTemplateData"])


@pytest.fixture
def hosts(simulated: Cloud) -> tuple[Cloud, ScriptedCluster]:
    scripted = ScriptedCluster()
    return replace(simulated, connect=scripted.connect), scripted


def test_a_launch_puts_down_what_ends_the_cluster(
    hosts: tuple[Cloud, ScriptedCluster], spec: ClusterSpec
) -> None:
    cloud, scripted = hosts
    cluster.launch(cloud, replace(spec, workers=2, max_hours=3, idle_minutes=45), ignore)
    found = of(cloud, spec.name)
    assert len(found) == 4
    assert {one.idle_minutes for one in found} == {45}
    assert len({one.expires for one in found}) == 1
    for host in scripted.hosts.values():
        assert any("settings.sh master " in one and "idle_minutes 45" in one for one in host.ran), host.ran
    # a second launch, which says nothing of it, changes nothing of it
    cluster.launch(cloud, replace(spec, workers=2), ignore)
    assert of(cloud, spec.name) == found
    cluster.destroy(cloud, spec.name, ignore)


def test_extend_tells_the_nodes_their_tags_and_the_template_of_those_to_come(
    hosts: tuple[Cloud, ScriptedCluster], spec: ClusterSpec
) -> None:
    cloud, scripted = hosts
    cluster.launch(cloud, replace(spec, workers=2, max_hours=3), ignore)
    before = of(cloud, spec.name)[0]
    after = lifetime.extend(cloud, spec.name, ignore, hours=2, idle_minutes=30)
    assert before.expires is not None
    assert after == Lifetime(expires=before.expires + timedelta(hours=2), idle_minutes=30)
    assert of(cloud, spec.name) == [after] * 4
    assert after.expires is not None
    moment = user_data.moment(after.expires)
    for host in scripted.hosts.values():
        assert host.ran[-2:] == [
            "sudo bash /opt/sparknet/ami/settings.sh idle_minutes 30",
            f"sudo bash /opt/sparknet/ami/deadline.sh '{moment}'",
        ]
    data = template_of(cloud, spec.name)
    assert f"moment='{moment}'".encode() in base64.b64decode(data["UserData"])
    for kind in data["TagSpecifications"]:
        assert Lifetime.of({tag["Key"]: tag["Value"] for tag in kind["Tags"]}) == after
    grown = cluster.launch(cloud, replace(spec, workers=3), ignore)
    assert [Lifetime.of(node.tags) for node in grown.nodes] == [after] * 4
    assert lifetime.extend(cloud, spec.name, ignore, idle_minutes=0).idle_minutes == 0
    assert of(cloud, spec.name)[0].idle_minutes == 0
    cluster.destroy(cloud, spec.name, ignore)


def test_a_node_that_cannot_be_told_is_named_and_only_the_others_are_tagged(
    hosts: tuple[Cloud, ScriptedCluster], spec: ClusterSpec
) -> None:
    cloud, scripted = hosts
    cluster.launch(cloud, replace(spec, workers=2), ignore)
    before = of(cloud, spec.name)[0]

    def connect(node: Node) -> Host:
        if node.name == "worker-2":
            raise HostUnreachable(node.name, "no answer")
        return scripted.connect(node)

    told: list[Note] = []
    with pytest.raises(HostsFailed, match="worker-2"):
        lifetime.extend(replace(cloud, connect=connect), spec.name, lambda one: _keep(told, one), hours=1)
    assert [note.text for note in told] == [f"worker-2 of {spec.name} still end as before: run it again."]
    moved = [one.expires != before.expires for one in of(cloud, spec.name)]
    assert moved == [False, True, True, False]  # the group, the master, two workers
    after = lifetime.extend(cloud, spec.name, ignore, hours=1)
    assert of(cloud, spec.name) == [after] * 4
    cluster.destroy(cloud, spec.name, ignore)


def _keep(told: list[Note], event: object) -> None:
    if isinstance(event, Note):
        told.append(event)


@pytest.mark.parametrize("hours", [-11.99, -13, 24 * 28])
def test_an_end_that_cannot_be_is_refused_before_anything_is_changed(
    simulated: Cloud, spec: ClusterSpec, hours: float
) -> None:
    cluster.launch(simulated, replace(spec, workers=1), ignore)
    before = of(simulated, spec.name)
    with pytest.raises(UsageError, match=r"would end at .* not between ten minutes and 672 hours from now"):
        lifetime.extend(simulated, spec.name, ignore, hours=hours)
    with pytest.raises(UsageError, match="--idle-minutes 3 is neither 0"):
        lifetime.extend(simulated, spec.name, ignore, idle_minutes=3)
    assert of(simulated, spec.name) == before
    cluster.destroy(simulated, spec.name, ignore)


def test_a_cluster_without_an_end_is_given_one_from_now_on(simulated: Cloud, spec: ClusterSpec) -> None:
    cluster.launch(simulated, replace(spec, workers=1, max_hours=0), ignore)
    after = lifetime.extend(simulated, spec.name, ignore, hours=5)
    assert after.expires is not None
    left = after.expires - simulated.region.now()
    assert timedelta(hours=4.9) < left < timedelta(hours=5.1)
    assert b"moment='20" in base64.b64decode(template_of(simulated, spec.name)["UserData"])
    cluster.destroy(simulated, spec.name, ignore)


def test_the_verb_says_what_ends_the_cluster_and_so_does_status(
    run: Run, simulated: Cloud, spec: ClusterSpec
) -> None:
    status, _, err = run("launch", "-s", "1", "--idle-minutes", "20", "--name", spec.name)
    assert status == 0, err
    status, out, err = run("extend", spec.name, "--hours", "1.5", "--idle-minutes", "40")
    assert status == 0, err
    [line] = out.splitlines()
    assert line.startswith(f"{spec.name} ends itself: at 20")
    assert line.endswith("UTC, after 40 minutes without a job")
    _, out, _ = run("status", spec.name)
    assert line.removeprefix(f"{spec.name} ") in out.splitlines()
    status, _, err = run("extend", spec.name)
    assert (status, err) == (2, "sparknet-ec2: extend needs one of --hours, --idle-minutes and --budget.\n")
    cluster.destroy(simulated, spec.name, ignore)


# -- user data ---------------------------------------------------------------------------------------------


def test_user_data_is_the_same_but_for_its_end() -> None:
    document = user_data.document(SPEC, expires=EXPIRES)
    assert user_data.with_end(document, expires=LATER) == user_data.document(SPEC, expires=LATER)
    assert user_data.with_end(user_data.with_end(document, expires=LATER), expires=EXPIRES) == document


def test_user_data_that_had_no_end_gets_one_before_it() -> None:
    plain = user_data.document(SPEC, expires=None)
    assert user_data.with_end(plain, expires=None) == plain
    assert user_data.with_end(plain, expires=LATER) == user_data.document(SPEC, expires=LATER)
    never = parts(user_data.with_end(user_data.document(SPEC, expires=EXPIRES), expires=None))
    assert b"\nmoment='never'\n" in never[0][1]


def test_packed_user_data_is_changed_too() -> None:
    packed = gzip.compress(user_data.document(SPEC, expires=EXPIRES))
    assert user_data.with_end(packed, expires=LATER) == user_data.document(SPEC, expires=LATER)


def test_what_ends_a_cluster_survives_its_tags() -> None:
    whole = Lifetime(expires=datetime(2026, 12, 1, 5, 30, tzinfo=UTC), idle_minutes=30, budget=20)
    for one in (whole, Lifetime(), replace(whole, budget=None), replace(whole, expires=None)):
        assert Lifetime.of({tag["Key"]: tag["Value"] for tag in one.as_list()}) == one


def test_a_launch_of_a_cluster_that_is_there_says_that_its_limits_stay(
    simulated: Cloud, spec: ClusterSpec
) -> None:
    told: list[Note] = []
    wanted = replace(spec, workers=1, idle_minutes=45)
    cluster.launch(simulated, wanted, lambda one: _keep(told, one))
    assert not any("still ends itself" in note.text for note in told)
    cluster.launch(simulated, replace(wanted, idle_minutes=60), lambda one: _keep(told, one))
    [said] = [note.text for note in told if "still ends itself" in note.text]
    assert "after 45 minutes without a job; sparknet-ec2 extend --name" in said
    assert of(simulated, spec.name)[0].idle_minutes == 45
    cluster.destroy(simulated, spec.name, ignore)
