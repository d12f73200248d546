"""Profiles: the role of a cluster's healer, in an instance profile of the same name.

IAM is one for all regions: the path of both, ``/sparknet/REGION/CLUSTER/``, says whose they are.
https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_switch-role-ec2_instance-profiles.html
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from infra.ec2.region import Region
from infra.ec2.tags import ClusterTags
from infra.errors import CredentialsError, InfraError, UsageError

LONGEST_NAME = 64  # of a role
HEALER, BUCKET = "healer", "bucket"  # names of policies: what the role is for
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
#: just made, and not known to EC2 yet; the same code for a name that is wrong, after which the call gives up
NOT_YET = ("InvalidParameterValue", "InvalidIamInstanceProfile*")
_ABSENT, _PRESENT, _HAS_ONE = ("NoSuchEntity",), ("EntityAlreadyExists",), ("LimitExceeded",)
ASSOCIATED = ("associating", "associated")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """An instance profile, of whose ``cluster`` the path says."""

    name: str
    cluster: str
    created: str  # ISO 8601


def name(region: str, cluster: str) -> str:
    whole = f"sparknet-{region}-{cluster}"
    if len(whole) <= LONGEST_NAME:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{whole[: LONGEST_NAME - 9]}-{digest}"


def make(region: Region, cluster_tags: ClusterTags, policy: dict[str, Any], *, called: str = HEALER) -> str:
    """The cluster's profile, whose role may do what ``policy``, ``called`` so, says; its name.

    What is there stays, other policies of the role too.
    """
    found = name(region.name, cluster_tags.cluster)
    own: dict[str, Any] = {
        "Path": _path(region.name, cluster_tags.cluster),
        "Tags": [one for one in cluster_tags.as_list() if one["Key"] != "Name"],
    }
    _change(region, "create_role", RoleName=found, AssumeRolePolicyDocument=json.dumps(TRUST), **own)
    _change(region, "put_role_policy", RoleName=found, PolicyName=called, PolicyDocument=json.dumps(policy))
    _change(region, "create_instance_profile", InstanceProfileName=found, **own)
    both: dict[str, Any] = {"InstanceProfileName": found, "RoleName": found}
    _change(region, "add_role_to_instance_profile", tolerate=_HAS_ONE, **both)
    return found


def associate(region: Region, instance: str, profile: str) -> None:
    """Let the instance have the profile, in place of another one that it has."""
    filters = [{"Name": "instance-id", "Values": [instance]}]
    for one in region.pages(
        "describe_iam_instance_profile_associations", "IamInstanceProfileAssociations", Filters=filters
    ):
        if one["State"] not in ASSOCIATED:
            continue
        if one["IamInstanceProfile"]["Arn"].rpartition("/")[2] == profile:
            return
        region.change("disassociate_iam_instance_profile", AssociationId=one["AssociationId"])
    region.change(
        "associate_iam_instance_profile",
        IamInstanceProfile={"Name": profile},
        InstanceId=instance,
        just_made=NOT_YET,
    )


def find(region: Region, cluster: str | None) -> list[Profile]:
    """The profiles of ``cluster`` (None: of any cluster of the region); none where they may not be listed."""
    try:
        return [one for one in _all(region) if cluster in (None, one.cluster)]
    except CredentialsError:
        return []  # who may not list them has made none


def remove(region: Region, profile: str) -> None:
    """Remove the profile and the role of its name; what is gone already is no error."""
    gone: dict[str, Any] = {"service": "iam", "tolerate": _ABSENT}
    both: dict[str, Any] = {"InstanceProfileName": profile, "RoleName": profile}
    region.change("remove_role_from_instance_profile", **both, **gone)
    region.change("delete_instance_profile", InstanceProfileName=profile, **gone)
    for called in (HEALER, BUCKET):
        forbid(region, profile, called)
    region.change("delete_role", RoleName=profile, **gone)


def forbid(region: Region, profile: str, called: str) -> None:
    """Take a policy from the role of the profile."""
    region.change("delete_role_policy", service="iam", RoleName=profile, PolicyName=called, tolerate=_ABSENT)


def roles_of(region: Region, profile: str) -> tuple[str, ...]:
    """The ARNs of the roles of a profile. Raises UsageError if there is none of that name."""
    answer = region.change(
        "get_instance_profile", service="iam", InstanceProfileName=profile, tolerate=_ABSENT
    )
    roles = answer["InstanceProfile"]["Roles"] if answer else []
    if not roles:
        raise UsageError(
            f"There is no instance profile {profile} that has a role; aws iam list-instance-profiles lists "
            "those there are."
        )
    return tuple(one["Arn"] for one in roles)


def require_allowed(region: Region, profile: str, actions: Sequence[str]) -> str:
    """Raises UsageError if the roles of ``profile`` may not do one of ``actions``.

    Returns why that could not be checked, empty if it was: conditions of its policies are not known to hold.
    """
    try:
        for role in roles_of(region, profile):
            answer = region.read(
                "simulate_principal_policy", service="iam", PolicySourceArn=role, ActionNames=list(actions)
            )
            refused = [
                one["EvalActionName"]
                for one in answer["EvaluationResults"]
                if one["EvalDecision"] != "allowed" and not one.get("MissingContextValues")
            ]
            if refused:
                raise UsageError(
                    f"The instance profile {profile} may not {', '.join(refused)}, which healing needs; add "
                    "to its role what sparknet-ec2 iam-policy healer prints, or leave out "
                    "--instance-profile-name."
                )
    except UsageError:
        raise
    except InfraError as error:
        return str(error)
    return ""


def _path(region: str, cluster: str = "") -> str:
    return f"/sparknet/{region}/{cluster}/" if cluster else f"/sparknet/{region}/"


def _all(region: Region) -> Iterator[Profile]:
    prefix = _path(region.name)
    more: dict[str, Any] = {}
    while True:
        answer = region.read("list_instance_profiles", service="iam", PathPrefix=prefix, **more)
        for one in answer["InstanceProfiles"]:
            if not one["Path"].startswith(prefix):  # moto lists all, whatever the prefix
                continue
            cluster = one["Path"].removeprefix(prefix).strip("/")
            created = one["CreateDate"].isoformat()
            yield Profile(name=one["InstanceProfileName"], cluster=cluster, created=created)
        if not answer.get("IsTruncated"):
            return
        more = {"Marker": answer["Marker"]}


def _change(
    region: Region, operation: str, *, tolerate: tuple[str, ...] = _PRESENT, **arguments: Any
) -> None:
    region.change(operation, service="iam", tolerate=tolerate, just_made=_ABSENT, **arguments)
