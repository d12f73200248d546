"""Many instances: quick to make, and polled with a number of calls that does not grow with them."""

from __future__ import annotations

import time
from typing import Any

from infra.local import LocalCloud
from tests.infra.local.requests import ZONE, fleet, ids, name, template, until

DISK = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 100, "VolumeType": "gp3", "Encrypted": True}}


def test_a_hundred_instances_come_with_one_call_and_go_with_one(cloud: LocalCloud, ec2: Any) -> None:
    cluster = name()
    tags = [
        {"ResourceType": kind, "Tags": [{"Key": "cluster", "Value": cluster}]}
        for kind in ("instance", "volume")
    ]
    of = template(ec2, BlockDeviceMappings=[DISK])
    pool = [{"InstanceType": "g6.xlarge", "AvailabilityZone": ZONE}]
    began = time.monotonic()
    made = ids(fleet(ec2, pool, 100, of_template=of, tags=tags))
    assert len(set(made)) == 100
    cloud.control("DELETE", "calls")
    assert _states(ec2, cluster) <= {"pending", "running"}
    assert len(ec2.describe_volumes(Filters=[{"Name": "tag:cluster", "Values": [cluster]}])["Volumes"]) == 200
    assert len(cloud.control("GET", "calls")) == 2
    ec2.terminate_instances(InstanceIds=made)
    until(lambda: _states(ec2, cluster) == {"terminated"}, "all to be terminated", timeout_seconds=60)
    assert ec2.describe_volumes(Filters=[{"Name": "tag:cluster", "Values": [cluster]}])["Volumes"] == []
    assert time.monotonic() - began < 60


def _states(ec2: Any, cluster: str) -> set[str]:
    answer = ec2.describe_instances(Filters=[{"Name": "tag:cluster", "Values": [cluster]}])
    return {
        one["State"]["Name"] for reservation in answer["Reservations"] for one in reservation["Instances"]
    }
