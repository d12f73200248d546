"""How long it takes from nothing to a Spark that is ready, on hosts of namespaces, and which phase takes it.

    python -m tests.bench.launch_time                      three workers, bare, twice; about 2 minutes
    python -m tests.bench.launch_time --image              and from an image that is built first
    python -m tests.bench.launch_time --workers 8 --runs 1

Everything is real but EC2 itself: sshd, mkfs, four JVMs. The embedded cloud is one of its own, in a temporary
folder, and gone afterwards. Of several runs the fastest counts: the others were disturbed. The load of the
machine stands beside each, since on two cores it decides.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from infra import cluster, image
from infra.cli.progress import Nodes, timings
from infra.cli.target import Target
from infra.cloud import Cloud
from infra.ec2 import images
from infra.events import Event, NodeProgress, PhaseEnded, ignore
from infra.home import HOME_VARIABLE
from infra.local import clean
from infra.local.hosts.namespaces import missing
from infra.spec import ClusterSpec

GOALS = {"bare": 60.0, "image": 40.0}  # seconds, for three workers on two idle cores


class Watch:
    """Listens, and knows how long each phase took, and each step of the nodes."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self.nodes, self.lock = Nodes(), threading.Lock()

    def emit(self, event: Event) -> None:
        with self.lock:
            match event:
                case PhaseEnded():
                    self.phases[event.phase] = event.seconds
                case NodeProgress():
                    self.nodes.enter(event.node, event.phase, time.monotonic())

    def rows(self) -> Iterator[str]:
        for name, seconds in self.phases.items():
            yield f"  {name:<10} {seconds:6.1f} s"
        yield from timings(self.nodes.took)


@click.command()
@click.option("--workers", default=3, show_default=True)
@click.option("--runs", default=2, show_default=True, help="Launches of each kind.")
@click.option("--image", "with_image", is_flag=True, help="Also from an image of our own.")
def main(workers: int, runs: int, with_image: bool) -> None:
    """Launch, time, destroy."""
    if lacking := missing():
        raise click.ClickException(f"no hosts of namespaces here: {'; '.join(lacking)}")
    with embedded_cloud() as cloud:
        bare = ClusterSpec(workers=workers, require_gpus=False, use_own_image=False)
        best = {"bare": min(launch(cloud, bare, "bare") for _ in range(runs))}
        if with_image:
            build(cloud, bare)
            baked = ClusterSpec(workers=workers, require_gpus=False)
            best["image"] = min(launch(cloud, baked, "image") for _ in range(runs))
    for kind, seconds in best.items():
        click.echo(f"{kind:<6} {seconds:5.1f} s at best; the goal on two idle cores is {GOALS[kind]:.0f} s")


@contextmanager
def embedded_cloud() -> Iterator[Cloud]:
    with tempfile.TemporaryDirectory(prefix="launch-time-") as folder:
        os.environ |= {HOME_VARIABLE: folder, "SPARKNET_EC2_HOSTS": "namespaces"}
        try:
            cloud = Target(cloud="local", region="us-east-1", name="sparknet").open(start=True)
            assert cloud is not None
            yield cloud
        finally:
            clean(Path(folder))


def launch(cloud: Cloud, spec: ClusterSpec, kind: str) -> float:
    """Seconds of one launch, its phases printed; the cluster is gone afterwards."""
    watch, began = Watch(), time.monotonic()
    load = os.getloadavg()[0]
    cluster.launch(cloud, spec, watch.emit)
    seconds = time.monotonic() - began
    click.echo(f"{kind}: {spec.workers} workers ready in {seconds:.1f} s (load before: {load:.1f})")
    for row in watch.rows():
        click.echo(row)
    cluster.destroy(cloud, spec.name, ignore)
    return seconds


def build(cloud: Cloud, spec: ClusterSpec) -> None:
    began = time.monotonic()
    made = image.build(cloud, image.BuildRequest(spec=image.builder(spec)), ignore)
    click.echo(f"image {made.name} built in {time.monotonic() - began:.1f} s")
    assert images.own(cloud.region)


if __name__ == "__main__":
    main()
