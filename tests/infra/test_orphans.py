"""What nobody can use is found, priced and removed; what somebody uses, or may be at work on, is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from infra import cluster, costs, orphans
from infra.cluster import Cloud
from infra.ec2 import cleanup, images, nodes, tags
from infra.ec2.images import OwnImage
from infra.events import Event, Removed, ignore
from infra.spec import ClusterSpec

LATER = timedelta(hours=5)


@pytest.fixture
def image(empty: Cloud) -> OwnImage:
    """An image of our own, of a machine that is gone."""
    region = empty.region
    cluster_tags = tags.ClusterTags.new("image-1", "f00d", max_hours=1, extra={})
    newest = images.find(region, "")
    started = region.change(
        "run_instances", ImageId=newest.id, InstanceType="m6i.large", MinCount=1, MaxCount=1
    )
    assert started is not None
    machine = started["Instances"][0]["InstanceId"]
    described = {images.CONTENT_HASH: "r", tags.GENERATION: "f00d", tags.CREATED: cluster_tags.created}
    made = images.create(region, machine, "sparknet-f00d", described)
    nodes.terminate(region, [machine])
    nodes.wait_gone(region, None, lambda node: node.id == machine, deadline_seconds=20)
    return made


def test_a_cluster_without_a_master_is_one_but_not_while_somebody_may_be_at_work(
    empty: Cloud, spec: ClusterSpec
) -> None:
    made = cluster.launch(empty, replace(spec, workers=1), ignore)
    assert made.master is not None
    nodes.terminate(empty.region, [made.master.id])
    assert orphans.find(empty.region) == []
    (orphan,) = orphans.find(empty.region, now=empty.region.now() + LATER)
    assert (orphan.cluster, orphan.reason) == (spec.name, "it has no master")
    assert orphan.dollars_per_hour > 0.1
    assert orphans.remove(empty, orphan, ignore) >= 4
    assert cleanup.remaining(empty.region, spec.name) == []


def test_an_image_is_kept_and_priced(empty: Cloud, image: OwnImage) -> None:
    assert orphans.find(empty.region, now=empty.region.now() + LATER) == []
    storage = costs.of_images(empty.region)
    assert (storage.images, storage.gib) == (1, image.size_gib)
    assert storage.per_month == pytest.approx(0.05 * image.size_gib)
    images.remove(empty.region, image.generation, poll_seconds=0.01)
    assert costs.of_images(empty.region).per_month == 0


def test_snapshots_whose_image_is_gone_are_orphans(empty: Cloud, image: OwnImage) -> None:
    empty.region.change("deregister_image", ImageId=image.id)
    assert orphans.find(empty.region) == []  # it may be on its way
    (orphan,) = orphans.find(empty.region, now=empty.region.now() + LATER)
    assert (orphan.cluster, orphan.reason) == ("sparknet-f00d", "its image is gone")
    assert orphan.dollars_per_hour == pytest.approx(0.05 * image.size_gib / 730)
    told: list[Event] = []
    assert orphans.remove(empty, orphan, told.append) == len(image.snapshots)
    assert told == [Removed(kind=cleanup.SNAPSHOT, id=one) for one in image.snapshots]
    assert images.snapshots(empty.region) == []
