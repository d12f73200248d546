"""An image is built, found by launch, copied and deleted; whatever happens on the way, nothing is left."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from infra import cluster, image
from infra.cluster import Cloud
from infra.ec2 import cleanup, images, nodes, tags
from infra.errors import ChecksFailed, CommandFailed, DeadlineExceeded, InfraError, Interrupted, UsageError
from infra.events import Event, Note, PhaseEnded, ignore
from infra.image import BuildRequest
from infra.interrupts import interrupts_raise
from infra.local import LocalCloud
from infra.node import bootstrap, bundle
from infra.node.host import Result
from infra.spec import ClusterSpec
from infra.survey import survey
from tests.infra.hosts import ScriptedCluster, ScriptedHost, account_of
from tests.infra.test_never_an_orphan import at_call

ELSEWHERE = "eu-west-1"


@pytest.fixture
def cloud(simulation: LocalCloud, empty: Cloud) -> Iterator[Cloud]:
    """An account without images of its own."""
    yield empty
    simulation.control("DELETE", "faults")
    for region in (empty.region, empty.region.at(ELSEWHERE)):
        for one in images.own(region):
            images.remove(region, one.generation, poll_seconds=0)


@pytest.fixture
def wanted() -> BuildRequest:
    return BuildRequest(spec=image.builder(ClusterSpec(instance_types=("g6.xlarge",))))


def snapshots(cloud: Cloud, region: str = "us-east-1") -> list[str]:
    filters = [{"Name": "tag-key", "Values": [images.CONTENT_HASH]}]
    found = cloud.region.at(region).read("describe_snapshots", OwnerIds=["self"], Filters=filters)
    return [one["SnapshotId"] for one in found["Snapshots"]]


def everything(cloud: Cloud) -> list[object]:
    """All that a build could leave: machines and their like, images, snapshots."""
    return [
        *cleanup.remaining(cloud.region, None),
        *(one.id for name in ("us-east-1", ELSEWHERE) for one in images.own(cloud.region.at(name))),
        *(one for name in ("us-east-1", ELSEWHERE) for one in snapshots(cloud, name)),
        *(cloud.home.rglob("*.pem")),
    ]


def fault(simulation: LocalCloud, **what: Any) -> None:
    simulation.control("DELETE", "calls")
    simulation.control("POST", "faults", [what])


def with_hosts(cloud: Cloud, **answers: Any) -> Cloud:
    """The same cloud, whose hosts answer some commands otherwise."""
    scripted = ScriptedCluster()

    def connect(node: nodes.Node) -> ScriptedHost:
        host = scripted.connect(node)
        first = {key: (lambda f=f: f(host)) if callable(f) else f for key, f in answers.items()}
        host.answers = first | {key: one for key, one in host.answers.items() if key not in first}
        return host

    return replace(cloud, connect=connect)


def test_an_image_is_built_and_tagged_and_its_builder_is_gone(cloud: Cloud, wanted: BuildRequest) -> None:
    events: list[Event] = []
    made = image.build(cloud, wanted, events.append)
    (found,) = images.own(cloud.region)
    assert found == made
    assert (found.state, found.recipe) == ("available", bootstrap.content_hash(wanted.spec))
    assert found.source == "ami-0d1a51a51a51a2204"
    assert found.versions.startswith("python 3.11.7, torch 2.9.0, pyspark 4.3.0, numpy 2.4.6, environment ")
    assert found.versions.endswith(", tried on NVIDIA L4")
    assert list(found.snapshots) == snapshots(cloud)
    assert cleanup.remaining(cloud.region, None) == []
    (described,) = cloud.region.read("describe_images", ImageIds=[made.id])["Images"]
    known = tags.as_dict(described["Tags"])
    assert known["Name"] == made.name
    assert max(map(len, known)) <= 128  # as EC2 takes them
    assert max(map(len, known.values())) <= 256
    assert [one.phase for one in events if isinstance(one, PhaseEnded)] == [
        "choose", "buy", "prepare", "verify", "clean", "stop", "image", "remove",
    ]  # fmt: skip


def test_the_builder_is_one_machine_bought_on_demand_and_stopped_before_its_picture_is_taken(
    simulation: LocalCloud, cloud: Cloud, wanted: BuildRequest
) -> None:
    simulation.control("DELETE", "calls")
    image.build(cloud, wanted, ignore)
    calls = [one["action"] for one in simulation.control("GET", "calls")]
    changing = [one for one in calls if not one.startswith(("Describe", "Get"))]
    assert changing.count("RunInstances") == 1
    assert "CreateFleet" not in changing
    assert (
        changing.index("StopInstances") < changing.index("CreateImage") < changing.index("TerminateInstances")
    )


def test_scripts_run_and_the_gate_comes_before_the_cleaning(cloud: Cloud, wanted: BuildRequest) -> None:
    scripted = ScriptedCluster()
    image.build(replace(cloud, connect=scripted.connect), wanted, ignore)
    ran = scripted.hosts["builder"].ran
    names = ["10-system", "20-gpu", "30-python", "40-spark", "checks.py facts", "clean-image.sh"]
    places = [next(place for place, command in enumerate(ran) if name in command) for name in names]
    assert places == sorted(places)
    assert places[-1] == len(ran) - 1


def test_a_launch_takes_the_newest_image_that_fits_and_says_so(cloud: Cloud, wanted: BuildRequest) -> None:
    first = image.build(cloud, wanted, ignore)
    second = image.build(cloud, replace(wanted, spec=image.builder(wanted.spec)), ignore)
    newest = max((first, second), key=lambda one: (one.created, one.name))
    found = survey(cloud.region, ClusterSpec())
    assert found.image.id == newest.id
    assert any(newest.id in note and "--fresh" in note for note in found.notes)


def test_a_launch_from_it_installs_nothing_again(
    cloud: Cloud, wanted: BuildRequest, spec: ClusterSpec
) -> None:
    made = image.build(cloud, wanted, ignore)
    told: list[Event] = []
    scripted = ScriptedCluster()
    content_hash, packed = bootstrap.content_hash(spec), bundle.build().digest

    def connect(node: nodes.Node) -> ScriptedHost:
        host = scripted.connect(node)
        host.answers[f"cat /{bootstrap.MARK}"] = f"{content_hash}\n"
        host.answers[f"cat /{bundle.ON_NODE}/.digest"] = f"{packed}\n"
        return host

    launched = cluster.launch(replace(cloud, connect=connect), spec, told.append)
    assert {node.image for node in launched.nodes} == {made.id}
    assert any(isinstance(one, Note) and made.name in one.text for one in told)
    for host in scripted.hosts.values():
        assert host.copied == []
        assert not any("30-python" in command or "40-spark" in command for command in host.ran)
        assert any("10-system" in command for command in host.ran)
    cluster.destroy(cloud, spec.name, ignore)
    assert images.own(cloud.region) == [made]


def test_another_image_is_taken_where_it_is_named_or_ours_does_not_fit(
    cloud: Cloud, wanted: BuildRequest
) -> None:
    made = image.build(cloud, wanted, ignore)
    for spec in (
        ClusterSpec(image="ami-0d1a51a51a51a2404"),
        ClusterSpec(use_own_image=False),
        ClusterSpec(spark_version="4.0.0"),  # the image has another
    ):
        found = survey(cloud.region, spec)
        assert found.image.id == (spec.image or "ami-0d1a51a51a51a2204") != made.id
        assert found.image.note == ""


def test_an_image_of_other_scripts_does_not_fit(
    cloud: Cloud, wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    image.build(cloud, wanted, ignore)
    (tmp_path / "30-python.sh").write_text("true\n")
    monkeypatch.setattr(bootstrap, "AMI", tmp_path)
    assert survey(cloud.region, ClusterSpec()).image.note == ""


def test_a_copy_in_another_region_has_the_same_tags(cloud: Cloud, wanted: BuildRequest) -> None:
    made = image.build(cloud, replace(wanted, copy_to=(ELSEWHERE,)), ignore)
    (copied,) = images.own(cloud.region.at(ELSEWHERE))
    assert copied.id != made.id
    assert (copied.name, copied.recipe, copied.versions) == (made.name, made.recipe, made.versions)
    assert (copied.state, list(copied.snapshots)) == ("available", snapshots(cloud, ELSEWHERE))
    assert survey(cloud.region.at(ELSEWHERE), ClusterSpec(region=ELSEWHERE)).image.id == copied.id


def test_a_copy_to_where_it_is_built_is_refused() -> None:
    with pytest.raises(UsageError, match="--copy-to us-east-1 is where the image is built"):
        BuildRequest(spec=ClusterSpec(), copy_to=("us-east-1",))


def test_delete_removes_the_image_with_its_snapshots_and_no_other(cloud: Cloud, wanted: BuildRequest) -> None:
    first = image.build(cloud, wanted, ignore)
    second = image.build(cloud, replace(wanted, spec=image.builder(wanted.spec)), ignore)
    gone = image.delete(cloud, image.find(cloud.region, first.name), ignore)
    assert sorted(gone) == sorted([first.id, *first.snapshots])
    assert images.own(cloud.region) == [second]
    assert snapshots(cloud) == list(second.snapshots)


def test_an_image_that_is_not_there_is_said_with_those_that_are(cloud: Cloud, wanted: BuildRequest) -> None:
    made = image.build(cloud, wanted, ignore)
    with pytest.raises(UsageError, match=f"no image ami-1 of our own in us-east-1 .*{made.name}"):
        image.find(cloud.region, "ami-1")
    assert image.find(cloud.region, made.id) == made


@pytest.mark.parametrize("action", ["RunInstances", "StopInstances", "CreateImage", "DescribeImages"])
def test_a_call_that_is_refused_leaves_nothing(
    simulation: LocalCloud, cloud: Cloud, wanted: BuildRequest, action: str
) -> None:
    simulation.control("POST", "faults", [{"action": action, "code": "UnauthorizedOperation", "times": 1}])
    with pytest.raises(InfraError) as refused:
        image.build(cloud, wanted, ignore)
    assert refused.value.exit_status == 3
    assert everything(cloud) == []


def test_a_lost_answer_of_create_image_makes_no_second_one(
    simulation: LocalCloud, cloud: Cloud, wanted: BuildRequest
) -> None:
    simulation.control("POST", "faults", [{"action": "CreateImage", "kind": "lost", "times": 1}])
    made = image.build(cloud, wanted, ignore)
    assert images.own(cloud.region) == [made]
    assert snapshots(cloud) == list(made.snapshots)


def test_a_copy_that_is_refused_leaves_the_image_and_no_copy(
    simulation: LocalCloud, cloud: Cloud, wanted: BuildRequest
) -> None:
    fault(simulation, action="CopyImage", code="UnauthorizedOperation", times=1)
    with pytest.raises(InfraError):
        image.build(cloud, replace(wanted, copy_to=(ELSEWHERE,)), ignore)
    assert len(images.own(cloud.region)) == 1
    assert (images.own(cloud.region.at(ELSEWHERE)), snapshots(cloud, ELSEWHERE)) == ([], [])
    assert cleanup.remaining(cloud.region, None) == []


@pytest.mark.parametrize("script", ["30-python.sh", "checks.py facts", "clean-image.sh"])
def test_a_script_that_fails_ends_the_build_and_leaves_nothing(
    cloud: Cloud, wanted: BuildRequest, script: str
) -> None:
    failed = Result(exit_status=1, stdout="", stderr="No matching distribution found for torch")
    with pytest.raises(InfraError, match="No matching distribution found for torch") as told:
        image.build(with_hosts(cloud, **{script: failed}), wanted, ignore)
    assert told.value.exit_status == CommandFailed.exit_status
    assert everything(cloud) == []


def test_a_builder_whose_gpu_does_not_answer_makes_no_image(cloud: Cloud, wanted: BuildRequest) -> None:
    def blind(host: ScriptedHost) -> str:
        return json.dumps(json.loads(account_of(host)) | {"gpus": []})

    with pytest.raises(ChecksFailed, match=r"builder +gpu +torch sees 0 of 1"):
        image.build(with_hosts(cloud, **{"checks.py facts": blind}), wanted, ignore)
    assert everything(cloud) == []
    without = replace(wanted, spec=replace(wanted.spec, name="image-2", require_gpus=False))
    made = image.build(with_hosts(cloud, **{"checks.py facts": blind}), without, ignore)
    assert made.versions.endswith("no GPU tried")


def test_an_image_that_ec2_gives_up_is_removed(
    cloud: Cloud, wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = images.read_image
    monkeypatch.setattr(images, "read_image", lambda region, one: read(region, {**one, "State": "failed"}))
    with pytest.raises(InfraError, match=r"EC2 could not make the image ami-.*: it is failed"):
        image.build(cloud, wanted, ignore)
    assert everything(cloud) == []


def test_an_image_that_takes_too_long_is_removed(
    cloud: Cloud, wanted: BuildRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = images.read_image
    monkeypatch.setattr(images, "read_image", lambda region, one: read(region, {**one, "State": "pending"}))
    monkeypatch.setattr(image, "IMAGE_SECONDS", 0.05)
    with pytest.raises(DeadlineExceeded, match=r"is still pending after 0\.05 s"):
        image.build(cloud, wanted, ignore)
    assert everything(cloud) == []


@pytest.mark.slow
def test_ctrl_c_at_any_call_of_a_build_leaves_nothing(cloud: Cloud, wanted: BuildRequest) -> None:
    interrupted = 0
    for index in range(1, 60, 3):
        sent: list[int] = []

        def interrupt(sent: list[int] = sent) -> None:
            if not sent:
                sent.append(1)
                os.kill(os.getpid(), signal.SIGINT)

        with interrupts_raise(), at_call(cloud.region, index, interrupt), suppress(Interrupted):
            image.build(cloud, wanted, ignore)
        if images.own(cloud.region):
            break  # it had come to its end before the interrupt: it stays
        assert everything(cloud) == [], f"after Ctrl-C at call {index}"
        interrupted += 1
    assert cleanup.remaining(cloud.region, None) == []
    assert interrupted > 5
