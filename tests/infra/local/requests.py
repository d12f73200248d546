"""What the tests of the embedded cloud ask of it, in one line each: a template, a machine, a fleet."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from botocore.exceptions import ClientError

IMAGE = "ami-0d1a51a51a51a2204"
ZONE = "us-east-1b"


def name() -> str:
    """A name no other test uses."""
    return f"t-{uuid.uuid4().hex[:12]}"


def template(ec2: Any, **data: Any) -> str:
    """The id of a new launch template."""
    answer = ec2.create_launch_template(
        LaunchTemplateName=name(), LaunchTemplateData={"ImageId": IMAGE, "InstanceType": "m6i.large", **data}
    )
    return str(answer["LaunchTemplate"]["LaunchTemplateId"])


def machine(ec2: Any, **parameters: Any) -> dict[str, Any]:
    """One new instance, as RunInstances describes it."""
    return dict(machines(ec2, 1, **parameters)[0])


def machines(ec2: Any, count: int, **parameters: Any) -> list[dict[str, Any]]:
    defaults = {"ImageId": IMAGE, "InstanceType": "m6i.large", "MinCount": count, "MaxCount": count}
    return list(ec2.run_instances(**{**defaults, **parameters})["Instances"])


def fleet(
    ec2: Any,
    overrides: Iterable[dict[str, Any]],
    count: int,
    *,
    purchase: str = "spot",
    of_template: str | None = None,
    tags: Iterable[dict[str, Any]] = (),
    token: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The answer to CreateFleet of type instant; ``options`` are those of the purchase."""
    key = "SpotOptions" if purchase == "spot" else "OnDemandOptions"
    reference = {"LaunchTemplateId": of_template or template(ec2), "Version": "$Latest"}
    return dict(
        ec2.create_fleet(
            Type="instant",
            LaunchTemplateConfigs=[{"LaunchTemplateSpecification": reference, "Overrides": list(overrides)}],
            TargetCapacitySpecification={"TotalTargetCapacity": count, "DefaultTargetCapacityType": purchase},
            **{key: options},
            **({"TagSpecifications": list(tags)} if tags else {}),
            **({"ClientToken": token} if token else {}),
        )
    )


def ids(answer: dict[str, Any]) -> list[str]:
    """The instances of a fleet's answer."""
    return [one for group in answer["Instances"] for one in group["InstanceIds"]]


def errors(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """(zone, code) of each refusal of a fleet's answer."""
    return [
        (error["LaunchTemplateAndOverrides"]["Overrides"].get("AvailabilityZone", ""), error["ErrorCode"])
        for error in answer["Errors"]
    ]


def describe(ec2: Any, instance_id: str) -> dict[str, Any]:
    return dict(ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0])


def state(ec2: Any, instance_id: str) -> str:
    return str(describe(ec2, instance_id)["State"]["Name"])


def until(claim: Callable[[], Any], what: str, timeout_seconds: float = 20.0) -> Any:
    """What ``claim`` answers, once that is true. Fails at the deadline, naming what was waited for."""
    deadline = time.monotonic() + timeout_seconds
    while not (found := claim()):
        assert time.monotonic() < deadline, f"waited {timeout_seconds:g} s for {what}"
        time.sleep(0.02)
    return found


def wait_for(ec2: Any, instance_id: str, wanted: str) -> None:
    until(lambda: state(ec2, instance_id) == wanted, f"{instance_id} to be {wanted}")


def code_of(call: Callable[[], Any]) -> str:
    """The code of the error that ``call`` ends in; empty if it does not."""
    try:
        call()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""
