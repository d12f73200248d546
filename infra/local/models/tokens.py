"""Client tokens: the same call twice is done once.

The same token with the same parameters gets the first answer again; with others,
IdempotentParameterMismatch, even if the first call failed for want of capacity. Other failures leave no
trace of the token. https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.elastic_block_store import ElasticBlockStore
from moto.ec2.responses.launch_templates import LaunchTemplates

from infra.local.calls.launch_spec import VOLUME_TYPES
from infra.local.calls.patches import Original, patch

CAPACITY_CODES = {"InsufficientInstanceCapacity", "SpotMaxPriceTooLow", "MaxSpotInstanceCountExceeded"}
NOT_COMPARED = {"ClientToken", "DryRun"}


class Tokens:
    """The tokens that were used: what for, and the answer."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, str, str], tuple[str, Any]] = {}

    def once(self, response: Any, action: str, work: Callable[[], Any]) -> Any:
        """The answer of ``work``, which is done only if no call with this token did it before."""
        token = response._get_param("ClientToken")
        if not token:
            return work()
        key = (response.region, action, token)
        asked = fingerprint(response._get_params())
        before, answer = self._used.get(key, (asked, None))
        if before != asked:
            raise EC2ClientError(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous "
                "request(s).",
            )
        if answer is not None:
            return answer
        try:
            answer = work()
        except EC2ClientError as error:
            if error.code in CAPACITY_CODES:
                self._used[key] = (asked, None)
            raise
        self._used[key] = (asked, answer)
        return answer


def fingerprint(parameters: dict[str, Any]) -> str:
    """All that must be equal in calls that share a token."""
    compared = {name: value for name, value in parameters.items() if name not in NOT_COMPARED}
    return json.dumps(compared, sort_keys=True, default=str)


@patch(
    ElasticBlockStore, "create_volume", why="a client token makes the call idempotent; a volume has a folder"
)
def create_volume(original: Original, response: Any) -> Any:
    def work() -> Any:
        _check_volume(response)
        result = original(response)
        patch.cloud.disks.make(result.result)
        return result

    return patch.cloud.tokens.once(response, "CreateVolume", work)


def _check_volume(response: Any) -> None:
    zone, kind = response._get_param("AvailabilityZone"), response._get_param("VolumeType") or "gp2"
    known = [one.name for one in response.ec2_backend.zones.get(response.region, [])]
    if zone not in known:
        raise EC2ClientError("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")
    if kind not in VOLUME_TYPES:
        raise EC2ClientError("UnknownVolumeType", f"Unsupported volume type '{kind}' for volume creation.")


@patch(LaunchTemplates, "create_launch_template", why="a client token makes the call idempotent")
def create_launch_template(original: Original, response: Any) -> Any:
    return patch.cloud.tokens.once(response, "CreateLaunchTemplate", lambda: original(response))
