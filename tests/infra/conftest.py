"""An embedded cloud whose instances are states only, and what launches on it with hosts that run nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from infra import orphans
from infra.cli import command
from infra.cli.target import Target
from infra.cluster import Cloud
from infra.ec2 import nodes
from infra.ec2.region import Region
from infra.events import ignore
from infra.local import LocalCloud, clean, open_cloud
from infra.spec import ClusterSpec
from tests.infra.hosts import ScriptedCluster

#: The command in this process: its words in, its status, stdout and stderr out.
Run = Callable[..., tuple[int, str, str]]
#: The words of ``launch`` in, the cluster that it would make out.
Asked = Callable[..., ClusterSpec]

QUOTAS = ("L-3819A6DF", "L-DB2E81BA", "L-34B43A08", "L-1216C47A")


@pytest.fixture(scope="session")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    folder = tmp_path_factory.mktemp("simulation")
    scenario = folder / "scenario.json"
    scenario.write_text(json.dumps({"hosts": "none"}))
    cloud = open_cloud(folder, scenario=scenario)
    assert cloud is not None
    yield cloud
    clean(folder)


@pytest.fixture
def simulated(simulation: LocalCloud, tmp_path: Path) -> Iterator[Cloud]:
    """A fresh account: no instance, plenty of everything, no fault."""
    keys = simulation.credentials
    region = Region(
        simulation.region,
        endpoint_url=simulation.endpoint_url,
        keys=(keys["aws_access_key_id"], keys["aws_secret_access_key"]),
        retry_seconds=10,
        sleep=_briefly,
    )
    yield Cloud(
        kind="aws",
        region=region,
        connect=ScriptedCluster().connect,
        caller_address=lambda: "198.51.100.7/32",
        home=tmp_path,
        poll_seconds=0.01,
    )
    simulation.control("DELETE", "faults")
    _end_instances(region)
    region.close()
    simulation.control("DELETE", "calls")
    simulation.control("POST", "clock", {"advance_seconds": 7200})  # forget what was terminated
    simulation.control("POST", "capacity", [])
    simulation.control("POST", "spot_prices", [])
    simulation.control("POST", "quotas", dict.fromkeys(QUOTAS, 8192))


@pytest.fixture
def empty(simulated: Cloud) -> Cloud:
    """An account in which nothing is left of what the tests before this one were about."""
    for orphan in orphans.find(simulated.region, now=simulated.region.now() + timedelta(days=1)):
        orphans.remove(simulated, orphan, ignore)
    return simulated


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command where no embedded cloud runs, and none is to be started."""
    monkeypatch.setenv("SPARKNET_EC2_HOME", str(tmp_path / "home"))

    def call(*words: str) -> tuple[int, str, str]:
        status = command.run(list(words))
        told = capsys.readouterr()
        return status, told.out, told.err

    return call


@pytest.fixture
def asked(alone: Run, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The cluster that ``launch`` with these words would make."""
    wanted: list[ClusterSpec] = []
    monkeypatch.setattr("infra.cli.clusters.bring_up", lambda _where, spec, **_more: wanted.append(spec))

    def call(*words: str) -> ClusterSpec:
        status, _, err = alone("launch", *words)
        assert status == 0, err
        return wanted[-1]

    return call


@pytest.fixture
def run(simulated: Cloud, alone: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command against the simulation, with hosts that run nothing."""
    monkeypatch.setattr(Target, "open", lambda _site, *_emit, start=False: simulated)
    monkeypatch.setattr("infra.cli.clusters.close_if_empty", lambda *_, **__: None)
    monkeypatch.setattr("infra.cli.status._print_limits", lambda _folder: None)
    return alone


@pytest.fixture
def spec(request: pytest.FixtureRequest) -> ClusterSpec:
    """Three workers, under a name no other test uses."""
    return ClusterSpec(name="t" + str(abs(hash(request.node.nodeid)) % 10**9), workers=3)


def _end_instances(region: Region) -> None:
    """What a test leaves running would count against the quotas of the next."""
    reservations = region.read("describe_instances")["Reservations"]
    machines = [one for part in reservations for one in part["Instances"]]
    nodes.terminate(region, [one["InstanceId"] for one in machines if one["State"]["Name"] != "terminated"])


def _briefly(_seconds: float) -> None:
    """Waits in tests are for a server of this machine."""
    import time

    time.sleep(0.01)
