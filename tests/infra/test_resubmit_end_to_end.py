"""A training whose master is killed goes on, on a new cluster, from the last state that it had saved."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from infra.local import open_cloud
from tests.infra.test_end_to_end import User

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)]

BUCKET = "sparknet-jobs-of-a-test"
ROUNDS = 120
TRAINING = [
    "CifarApp", "--", "--data", "synthetic", "--rounds", str(ROUNDS), "--tau", "2", "--batch-size", "20",
    "--test-every", "1000",
]  # fmt: skip


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    one = User(tmp_path)
    yield one
    one.types("local", "clean")


def test_a_training_whose_master_is_killed_goes_on_from_its_last_checkpoint(user: User) -> None:
    told = user.types("launch", "-s", "1", "first", "--bucket", BUCKET)
    assert f"The bucket {BUCKET} is made" in told
    often = ["-e", "SPARKNET_CHECKPOINT_SECONDS=4"]
    job = user.types("submit", "--name", "first", "--detach", *often, *TRAINING).splitlines()[-1]

    cloud = open_cloud(user.folder / "home", start=False)
    assert cloud is not None
    more = {"endpoint_url": cloud.endpoint_url, "region_name": cloud.region, **cloud.credentials}
    s3, ec2 = boto3.client("s3", **more), boto3.client("ec2", **more)

    def saved() -> list[int]:
        found = s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        whole = [re.search(r"round-(\d+)/manifest\.json$", one["Key"]) for one in found]
        return sorted(int(one[1]) for one in whole if one)

    end = time.monotonic() + 400
    while not saved():
        assert time.monotonic() < end, user.types("logs", "--name", "first", job)
        time.sleep(1)
    state = user.types("status", "first")
    assert re.search(rf"job {job}: round \d+/{ROUNDS}, loss \d", state), state
    roles = [{"Name": "tag:sparknet:role", "Values": ["master"]}]
    (master,) = ec2.describe_instances(Filters=roles)["Reservations"][0]["Instances"]
    ec2.terminate_instances(InstanceIds=[master["InstanceId"]])
    last = saved()[-1]
    told = user.types("destroy", "first", "--yes")
    assert f"kept: the bucket {BUCKET} with" in told

    user.types("launch", "-s", "1", "second", "--bucket", BUCKET)
    told = user.types("resubmit", "--name", "second", job)
    found = re.search(r"going on after round (\d+), from s3://", told)
    assert found is not None, told
    assert int(found[1]) >= last
    assert f"round {ROUNDS}/{ROUNDS}" in told
    assert "round 1/" not in told
    told = user.types("destroy", "second", "--yes", "--bucket")
    assert f"the bucket {BUCKET} is gone" in told
    assert user.processes() == []
