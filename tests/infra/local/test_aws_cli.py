"""The AWS CLI against the endpoint, as a person types it: tokens, waiting, fleets, spot, errors, pages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from infra.local import LocalCloud
from tests.infra.local.requests import IMAGE, name

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("aws") is None, reason="the AWS CLI is not installed"),
]


class Cli:
    """``aws`` with the environment that ``local status`` prints."""

    def __init__(self, cloud: LocalCloud) -> None:
        ours = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        self.environment = {**ours, **cloud.environment, "AWS_PAGER": "", "AWS_MAX_ATTEMPTS": "1"}

    def __call__(self, words: str, *more: str) -> Any:
        """What it prints, read as JSON."""
        said = self.run(words, more)
        assert said.returncode == 0, said.stderr
        return json.loads(said.stdout) if said.stdout.strip() else None

    def error(self, words: str, *more: str) -> str:
        """The code of the error that it ends in."""
        said = self.run(words, more)
        assert said.returncode != 0, said.stdout
        return said.stderr.partition("(")[2].partition(")")[0]

    def run(self, words: str, more: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["aws", *words.split(), *more, "--output", "json"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def aws(cloud: LocalCloud, ec2: Any) -> Cli:
    return Cli(cloud)


def test_a_machine_is_made_once_waited_for_found_and_ended(aws: Cli) -> None:
    run = f"ec2 run-instances --image-id {IMAGE} --instance-type g6.xlarge --client-token {name()}"
    first, again = aws(run), aws(run)
    (instance,) = first["Instances"]
    ident = instance["InstanceId"]
    assert instance["State"]["Name"] == "pending"
    assert [one["InstanceId"] for one in again["Instances"]] == [ident]
    assert aws.error(f"{run} --count 2") == "IdempotentParameterMismatch"
    assert aws.error(f"ec2 run-instances --image-id {IMAGE} --dry-run") == "DryRunOperation"
    aws(f"ec2 wait instance-running --instance-ids {ident}")
    found = aws("ec2 describe-instances --filters Name=instance-state-name,Values=running --page-size 5")
    addresses = [(one["InstanceId"], one["PublicIpAddress"]) for one in found["Reservations"][0]["Instances"]]
    assert addresses[0][0] == ident
    assert addresses[0][1].startswith("203.0.113.")
    aws(f"ec2 terminate-instances --instance-ids {ident}")
    aws(f"ec2 wait instance-terminated --instance-ids {ident}")


def test_a_fleet_is_honest_about_its_pools(cloud: LocalCloud, aws: Cli) -> None:
    template, data = name(), {"ImageId": IMAGE, "MetadataOptions": {"HttpTokens": "required"}}
    aws(
        f"ec2 create-launch-template --launch-template-name {template} --launch-template-data",
        json.dumps(data),
    )
    cloud.control("POST", "capacity", [{"instance_type": "g6.xlarge", "machines": 1}])
    config = {
        "LaunchTemplateSpecification": {"LaunchTemplateName": template, "Version": "$Latest"},
        "Overrides": [
            {"InstanceType": kind, "AvailabilityZone": "us-east-1b"} for kind in ("g6.xlarge", "g5.xlarge")
        ],
    }
    answer = aws(
        "ec2 create-fleet --type instant --target-capacity-specification "
        "TotalTargetCapacity=2,DefaultTargetCapacityType=spot --spot-options SingleInstanceType=true,"
        "SingleAvailabilityZone=true,MinTargetCapacity=2,AllocationStrategy=price-capacity-optimized "
        "--launch-template-configs",
        json.dumps([config]),
    )
    assert [one["ErrorCode"] for one in answer["Errors"]] == ["InsufficientInstanceCapacity"]
    ids = [one for group in answer["Instances"] for one in group["InstanceIds"]]
    found = aws(f"ec2 describe-instances --instance-ids {' '.join(ids)}")
    machines = [one for part in found["Reservations"] for one in part["Instances"]]
    assert {
        (one["InstanceType"], one["InstanceLifecycle"], one["MetadataOptions"]["HttpTokens"])
        for one in machines
    } == {("g5.xlarge", "spot", "required")}
    requests = aws("ec2 describe-spot-instance-requests --filters Name=state,Values=active")
    assert {one["InstanceId"] for one in requests["SpotInstanceRequests"]} == set(ids)


def test_errors_carry_the_codes_of_ec2(cloud: LocalCloud, aws: Cli) -> None:
    cloud.control("POST", "quotas", {"L-1216C47A": 2})
    run = f"ec2 run-instances --image-id {IMAGE} --instance-type"
    assert aws.error(f"{run} m6i.large --count 2") == "VcpuLimitExceeded"
    spot = "--instance-market-options MarketType=spot,SpotOptions={MaxPrice=0.01}"
    assert aws.error(f"{run} g6.xlarge {spot}") == "SpotMaxPriceTooLow"
    assert aws.error("ec2 describe-instances --instance-ids i-bogus") == "InvalidInstanceID.Malformed"


def test_a_spot_request_of_the_old_kind_is_waited_for(aws: Cli) -> None:
    wanted = json.dumps({"ImageId": IMAGE, "InstanceType": "g6.xlarge"})
    answer = aws("ec2 request-spot-instances --spot-price 1 --launch-specification", wanted)
    ident = answer["SpotInstanceRequests"][0]["SpotInstanceRequestId"]
    aws(f"ec2 wait spot-instance-request-fulfilled --spot-instance-request-ids {ident}")
    found = aws(f"ec2 describe-spot-instance-requests --spot-instance-request-ids {ident}")
    assert found["SpotInstanceRequests"][0]["InstanceId"].startswith("i-")
