"""Image: bakes a machine image out of ``ami/``, so that nodes start with all of it in place.

    build     a builder, the scripts, the checks, clean, stop, CreateImage, wait, copy; the builder goes
              whatever happens on the way, and an image that did not come to its end with it
    delete    the image and its snapshots

The builder is a cluster of one node called ``image-...``: destroy and gc know how to remove what is left of
it if the machine that builds is switched off.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from shlex import quote
from typing import TypeVar

from infra import cluster, provision
from infra.cluster import Cloud
from infra.ec2 import fleet, images, keys, network, nodes, tags, template
from infra.ec2.images import OwnImage
from infra.ec2.nodes import WORKER, Node
from infra.ec2.region import Region
from infra.ec2.tags import ClusterTags
from infra.errors import InfraError, Leftovers, UsageError
from infra.events import CheckFailed, Emit, Note, Removed, phase
from infra.interrupts import undone_on_failure
from infra.node import bootstrap, checks
from infra.spec import ClusterSpec
from infra.survey import Survey, launch_data, survey

T = TypeVar("T")

BUILDER = "image-"  # begins the name of the builder's cluster
BUILDER_HOURS = 3.0  # it ends by itself then, should the machine that builds be gone
RUNNING_SECONDS = 300.0
STOP_SECONDS = 300.0
CLEAN_SECONDS = 300.0
IMAGE_SECONDS = 3600.0  # EC2 copies the used part of the root volume: ten minutes, on a bad day many
COPY_SECONDS = 7200.0
NAMED = ("torch", "pyspark", "numpy")
TAG_CHARACTERS = 256  # as EC2


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What is to be built, and to which other regions it is copied. ``spec`` is that of the builder."""

    spec: ClusterSpec
    copy_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.spec.region in self.copy_to:
            raise UsageError(
                f"--copy-to {self.spec.region} is where the image is built; name another region."
            )


def builder(spec: ClusterSpec) -> ClusterSpec:
    """The spec of the one node that an image for ``spec`` is built on: on demand, without more disks."""
    return replace(
        spec,
        name=BUILDER + secrets.token_hex(4),
        workers=1,
        master_instance_type=spec.instance_types[0],
        instance_types=spec.instance_types[:1],
        use_own_image=False,
        max_hours=BUILDER_HOURS,
        spill=replace(spec.spill, count=0),
    )


def build(cloud: Cloud, request: BuildRequest, emit: Emit) -> OwnImage:
    """Build the image and wait until it can be launched, here and in ``request.copy_to``.

    Raises what a launch raises, ChecksFailed if the builder is not fit to train. Whatever is raised, an
    interrupt too, neither the builder nor an unfinished image is left (Leftovers says what could not go).
    """
    made = _with_builder_removed(cloud, request.spec.name, lambda: _build(cloud, request.spec, emit), emit)
    for name in request.copy_to:
        with phase(emit, f"copy to {name}"):
            copy(cloud, made, name, emit)
    return made


def _build(cloud: Cloud, spec: ClusterSpec, emit: Emit) -> OwnImage:
    """``build`` in the one region; the builder stays."""
    region = cloud.region
    cluster_tags = ClusterTags.new(
        spec.name, secrets.token_hex(8), max_hours=spec.max_hours, extra=spec.tags, now=region.now()
    )
    with phase(emit, "choose"):
        found = survey(region, spec)
    with phase(emit, "buy"):
        _buy(cloud, spec, found, cluster_tags, emit)
        (node,) = nodes.wait_running(
            region, spec.name, 1, deadline_seconds=RUNNING_SECONDS, poll_seconds=cloud.poll_seconds
        )
    facts = _install(cloud, spec, replace(node, name="builder", role=WORKER), found, emit)
    with phase(emit, "stop"):
        _stop(cloud, node)

    def create() -> OwnImage:
        described = _describe(spec, cluster_tags, facts, source=found.image.id)
        made = images.create(region, node.id, f"sparknet-{cluster_tags.generation}", described)
        return images.wait_available(
            region, made, deadline_seconds=IMAGE_SECONDS, poll_seconds=cloud.poll_seconds
        )

    with phase(emit, "image"):
        return _removed_on_failure(cloud, region, cluster_tags.generation, create, emit)


def copy(cloud: Cloud, image: OwnImage, region_name: str, emit: Emit) -> OwnImage:
    """A copy of ``image`` in another region, once it can be launched there. One that fails is removed."""
    target = cloud.region.at(region_name)
    described = {
        images.CONTENT_HASH: image.recipe,
        images.SOURCE: image.source,
        images.VERSIONS: image.versions,
        tags.GENERATION: image.generation,
        tags.CREATED: image.created,
        tags.OWNER: image.owner,
    }

    def make() -> OwnImage:
        made = images.copy(cloud.region, target, image, described)
        return images.wait_available(
            target, made, deadline_seconds=COPY_SECONDS, poll_seconds=cloud.poll_seconds
        )

    return _removed_on_failure(cloud, target, image.generation, make, emit)


def find(region: Region, wanted: str) -> OwnImage:
    """The own image of that id or name. Raises UsageError, naming those there are."""
    there = images.own(region)
    for one in there:
        if wanted in (one.id, one.name):
            return one
    names = ", ".join(one.name for one in there) or "none"
    raise UsageError(f"There is no image {wanted} of our own in {region.name} (there are: {names}).")


def delete(cloud: Cloud, image: OwnImage, emit: Emit) -> list[str]:
    """Remove the image and its snapshots in its region; the ids of what there was. Raises Leftovers."""
    gone = images.remove(cloud.region, image.generation, poll_seconds=cloud.poll_seconds)
    for one in gone:
        emit(Removed(kind="image" if one.startswith("ami-") else "snapshot", id=one))
    return gone


def _buy(cloud: Cloud, spec: ClusterSpec, found: Survey, cluster_tags: ClusterTags, emit: Emit) -> None:
    region = cloud.region
    group = network.make_group(region, cluster_tags, found.subnets[0].vpc_id)
    network.open_group(region, group, spec.network.authorized_address or cloud.caller_address())
    keys.make_pair(region, cluster_tags, cloud.home, may_replace=True)
    ours = template.make(region, launch_data(spec, found, group), cluster_tags)
    fleet.buy_master(region, found.master_places, ours, cluster_tags, emit)


def _install(cloud: Cloud, spec: ClusterSpec, node: Node, found: Survey, emit: Emit) -> checks.Facts:
    """Run ``ami/``, check the builder, and remove what no other node may have."""
    gpus = {name: one.gpus for name, one in found.types.items()}
    setup = provision.Setup(spec=spec, connect=cloud.connect, gpus=gpus, emit=emit, pace=cloud.pace)
    with phase(emit, "prepare"):
        host = setup.prepare(node, mount=False).member.host
    scripts = host.root / bootstrap.ON_NODE
    with phase(emit, "verify"):
        facts = checks.inspect(
            host, node.name, [host.root / "var/lib/sparknet"], gpus=setup.expected_gpus(node)
        )
        wrong = checks.problems([facts])
        for one in wrong:
            emit(CheckFailed(node=one.node, check=one.check, said=one.said))
        checks.require_none(wrong, 1)
    with phase(emit, "clean"):
        host.run(f"bash {quote(str(scripts / 'clean-image.sh'))}", timeout_seconds=CLEAN_SECONDS)
        host.close()
    return facts


def _stop(cloud: Cloud, node: Node) -> None:
    """A file system that nobody writes to any more is the only one that is whole in its snapshot."""
    nodes.stop(
        cloud.region, node.cluster, node.id, deadline_seconds=STOP_SECONDS, poll_seconds=cloud.poll_seconds
    )


def _describe(
    spec: ClusterSpec, cluster_tags: ClusterTags, facts: checks.Facts, *, source: str
) -> dict[str, str]:
    """The image's tags."""
    versions = [f"python {facts.python}", *(f"{name} {facts.packages.get(name, '-')}" for name in NAMED)]
    gpus = f"tried on {facts.gpus[0].name}" if facts.gpus else "no GPU tried"
    return {
        **cluster_tags.extra,
        images.CONTENT_HASH: bootstrap.content_hash(spec),
        images.SOURCE: source,
        images.VERSIONS: ", ".join([*versions, f"environment {facts.environment}", gpus])[:TAG_CHARACTERS],
        tags.GENERATION: cluster_tags.generation,
        tags.CREATED: cluster_tags.created,
        tags.OWNER: cluster_tags.owner,
        tags.VERSION: cluster_tags.version,
    }


def _with_builder_removed(cloud: Cloud, name: str, work: Callable[[], T], emit: Emit) -> T:
    """``work``; whatever ends it, the builder and all that belonged to it is gone afterwards."""

    def work_and_remove() -> T:
        made = work()
        cluster.destroy(cloud, name, emit)
        return made

    def undo(error: BaseException) -> None:
        emit(Note(text="The image was not built; removing the builder."))
        _tear_down(error, lambda: cluster.destroy(cloud, name, emit))

    return undone_on_failure(work_and_remove, undo, _reporting("the builder", emit))


def _removed_on_failure(
    cloud: Cloud, region: Region, generation: str, work: Callable[[], T], emit: Emit
) -> T:
    """``work``; whatever ends it before its end first removes the image of ``generation`` from ``region``."""

    def undo(error: BaseException) -> None:
        emit(Note(text=f"The image in {region.name} did not come to its end; removing it."))
        _tear_down(error, lambda: images.remove(region, generation, poll_seconds=cloud.poll_seconds))

    return undone_on_failure(work, undo, _reporting("the image", emit))


def _reporting(what: str, emit: Emit) -> Callable[[str], None]:
    """What answers an interrupt while ``what`` is removed."""
    return lambda signal: emit(
        Note(text=f"{signal}: still removing {what}; wait, or interrupt once more to leave it as it is.")
    )


def _tear_down(error: BaseException, remove: Callable[[], object]) -> None:
    try:
        remove()
    except InfraError as second:
        raise Leftovers(
            f"{error}\nand not everything that had been made could be removed: {second}"
        ) from error
