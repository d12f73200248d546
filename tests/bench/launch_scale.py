"""How a launch and a destroy grow with the cluster: seconds, API calls, memory. Hosts are stubbed out.

    ./run bench launch_scale                    10, 100 and 1,000 workers
    ./run bench launch_scale --args "100 300"   so many

The simulated EC2 is a process of its own on the same machine: its time is a part of the seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from infra import cluster
from infra.cluster import Cloud
from infra.ec2 import cleanup
from infra.ec2.region import Region
from infra.events import ignore
from infra.local import LocalCloud, clean, open_cloud
from infra.spec import ClusterSpec
from tests.infra.hosts import ScriptedCluster

MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    """What one recipe took."""

    seconds: float
    calls: Counter[str]
    client_mib: float  # the largest this process ever was
    server_mib: float

    def __str__(self) -> str:
        most = ", ".join(f"{count} {action}" for action, count in self.calls.most_common(4))
        return (
            f"{self.seconds:7.1f} s  {self.calls.total():4d} calls ({most})  "
            f"client {self.client_mib:.0f} MiB, server {self.server_mib:.0f} MiB"
        )


def measured(simulation: LocalCloud, work: Callable[[], Any]) -> Row:
    simulation.control("DELETE", "calls")
    began = time.monotonic()
    work()
    seconds = time.monotonic() - began
    calls = Counter(call["action"] for call in simulation.control("GET", "calls"))
    client = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Row(seconds, calls, client, psutil.Process(simulation.pid).memory_info().rss / MIB)


def cloud_of(simulation: LocalCloud, home: Path) -> Cloud:
    keys = simulation.credentials
    return Cloud(
        kind="aws",
        region=Region(
            simulation.region,
            endpoint_url=simulation.endpoint_url,
            keys=(keys["aws_access_key_id"], keys["aws_secret_access_key"]),
            retry_seconds=60,
        ),
        connect=ScriptedCluster().connect,
        caller_address=lambda: "198.51.100.7/32",
        home=home,
        poll_seconds=1.0,
    )


def run(workers: int) -> tuple[Row, Row]:
    """A launch and a destroy of so many workers, in a cloud of their own."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        scenario = home / "scenario.json"
        scenario.write_text(json.dumps({"hosts": "none"}))
        simulation = open_cloud(home, scenario=scenario)
        assert simulation is not None
        cloud = cloud_of(simulation, home / "user")
        simulation.control("POST", "quotas", {"L-3819A6DF": 1e6})
        try:
            spec = ClusterSpec(name="scale", workers=workers)
            launched = measured(simulation, lambda: cluster.launch(cloud, spec, ignore))
            destroyed = measured(simulation, lambda: cluster.destroy(cloud, spec.name, ignore))
            assert cleanup.remaining(cloud.region, None) == []
        finally:
            cloud.region.close()
            clean(home)
    return launched, destroyed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workers", type=int, nargs="*", default=[10, 100, 1000])
    for workers in parser.parse_args().workers:
        launched, destroyed = run(workers)
        sys.stdout.write(f"{workers:5d} workers  launch  {launched}\n")
        sys.stdout.write(f"{'':13}  destroy {destroyed}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
