"""Two embedded clouds for all tests here: one whose instances are states only, one with process hosts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from infra.local import LocalCloud, clean, open_cloud
from tests.infra.local.requests import until

QUOTAS = ("L-3819A6DF", "L-DB2E81BA", "L-34B43A08", "L-1216C47A", "L-7212CCBC", "L-417A185B")
ONCE = Config(retries={"total_max_attempts": 1}, read_timeout=20)


def client(cloud: LocalCloud, service: str = "ec2", region: str | None = None, config: Config = ONCE) -> Any:
    """A client of stock boto3 that makes each call once."""
    return boto3.client(
        service,
        endpoint_url=cloud.endpoint_url,
        region_name=region or cloud.region,
        config=config,
        **cloud.credentials,
    )


def opened(folder: Any, scenario: dict[str, Any]) -> Iterator[LocalCloud]:
    file = folder / "scenario.json"
    file.write_text(json.dumps(scenario))
    cloud = open_cloud(folder, scenario=file)
    assert cloud is not None
    yield cloud
    clean(folder)


@pytest.fixture(scope="session")
def states_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    yield from opened(tmp_path_factory.mktemp("states"), {"hosts": "none"})


@pytest.fixture(scope="session")
def hosts_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    yield from opened(tmp_path_factory.mktemp("hosts"), {"notice_seconds": 0.5})


@pytest.fixture(scope="session")
def states_client(states_cloud: LocalCloud) -> Iterator[Any]:
    """Made once: boto3 takes longer to read its model of EC2 than a test takes."""
    yield from closed(client(states_cloud))


@pytest.fixture(scope="session")
def hosts_client(hosts_cloud: LocalCloud) -> Iterator[Any]:
    yield from closed(client(hosts_cloud))


def closed(found: Any) -> Iterator[Any]:
    yield found
    found.close()


@pytest.fixture
def cloud(states_cloud: LocalCloud) -> Iterator[LocalCloud]:
    """A cloud without hosts, plenty of everything, no fault."""
    yield states_cloud
    states_cloud.control("DELETE", "faults")
    states_cloud.control("POST", "scenario", {"pools_per_fleet": 0, "boot_seconds": 0, "lag_seconds": 0})
    states_cloud.control("POST", "clock", {"advance_seconds": 7200})  # forget what was terminated
    states_cloud.control("POST", "capacity", [])
    states_cloud.control("POST", "spot_prices", [])
    states_cloud.control("POST", "quotas", dict.fromkeys(QUOTAS, 8192))


@pytest.fixture
def ec2(cloud: LocalCloud, states_client: Any) -> Iterator[Any]:
    """EC2 of that cloud; whatever a test left running is terminated after it."""
    yield states_client
    cloud.control("DELETE", "faults")
    terminate_all(states_client)


@pytest.fixture
def hosts_ec2(hosts_client: Any) -> Iterator[Any]:
    """EC2 of the cloud with hosts; whatever a test left running is terminated after it."""
    yield hosts_client
    terminate_all(hosts_client)


def terminate_all(ec2: Any) -> None:
    """And wait until they are, so that the next test finds all capacity free."""
    if left := alive(ec2):
        ec2.terminate_instances(InstanceIds=left)
    until(lambda: not alive(ec2), "all instances to be terminated")


def alive(ec2: Any) -> list[str]:
    states = ["pending", "running", "stopping", "stopped", "shutting-down"]
    answer = ec2.describe_instances(Filters=[{"Name": "instance-state-name", "Values": states}])
    return [one["InstanceId"] for reservation in answer["Reservations"] for one in reservation["Instances"]]
