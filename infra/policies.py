"""Policies: the permissions of IAM that a person needs, and those that a cluster's healer needs. Pure.

What can be bound to one cluster is: by the tag that everything of it carries. EC2 knows no such condition for
what only looks.
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from infra.ec2 import tags

VERSION = "2012-10-17"
#: the permissions of the calls that the command makes, besides those of the healer
OF_A_PERSON = {
    "ec2": (
        "AssociateIamInstanceProfile", "AuthorizeSecurityGroupIngress", "CancelSpotInstanceRequests",
        "CopyImage", "CreateFleet", "CreateImage", "CreateLaunchTemplate", "CreateLaunchTemplateVersion",
        "CreateSecurityGroup", "CreateTags", "DeleteKeyPair", "DeleteLaunchTemplate",
        "DeleteNetworkInterface", "DeletePlacementGroup", "DeleteSecurityGroup", "DeleteSnapshot",
        "DeleteVolume", "DeregisterImage", "Describe*", "DisassociateIamInstanceProfile",
        "GetConsoleOutput", "ImportKeyPair", "ReleaseAddress", "RevokeSecurityGroupIngress", "RunInstances",
        "StartInstances", "StopInstances", "TerminateInstances",
    ),
    "iam": (
        "AddRoleToInstanceProfile", "CreateInstanceProfile", "CreateRole", "CreateServiceLinkedRole",
        "DeleteInstanceProfile", "DeleteRole", "DeleteRolePolicy", "GetInstanceProfile",
        "ListInstanceProfiles", "PassRole", "PutRolePolicy", "RemoveRoleFromInstanceProfile",
        "SimulatePrincipalPolicy", "TagInstanceProfile", "TagRole",
    ),
    "pricing": ("GetProducts",),
    "s3": (
        "CreateBucket", "DeleteBucket", "DeleteObject", "DeleteObjectVersion", "GetBucketLocation",
        "GetBucketTagging", "GetObject", "ListAllMyBuckets", "ListBucket", "ListBucketVersions",
        "PutBucketPublicAccessBlock", "PutBucketTagging", "PutLifecycleConfiguration", "PutObject",
    ),
    "servicequotas": ("GetAWSDefaultServiceQuota", "GetServiceQuota", "ListServiceQuotas"),
    "ssm": ("GetParameter",),
    "sts": ("GetCallerIdentity",),
}  # fmt: skip
#: what the healer looks at, and what it makes, marks and ends
LOOKS = (
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSpotInstanceRequests",
    "ec2:DescribeSpotPriceHistory",
)
MAKES = ("ec2:CreateFleet", "ec2:CreateLaunchTemplate", "ec2:RunInstances")
TAGS = "ec2:CreateTags"
ENDS = ("ec2:DeleteLaunchTemplate", "ec2:GetConsoleOutput", "ec2:TerminateInstances")
PASSES = "iam:PassRole"
HEALER = (*LOOKS, *MAKES, TAGS, *ENDS)


def person() -> dict[str, Any]:
    """What a person needs for all verbs."""
    actions = [f"{service}:{one}" for service, some in OF_A_PERSON.items() for one in some]
    return _document([_allow("SparkNet", actions)])


def healer(region: str, cluster: str, *, passes: Iterable[str] = ()) -> dict[str, Any]:
    """What the healer of ``cluster`` needs; ``passes``: ARNs of roles that its workers have, if any."""
    its_own = {"StringEquals": {f"aws:ResourceTag/{tags.CLUSTER}": cluster}}
    here = {"StringEquals": {"aws:RequestedRegion": region}}
    roles = sorted(passes)
    return _document(
        [
            _allow("Look", LOOKS, here),
            _allow("Make", MAKES, here),
            # at the call that makes it, and later
            _allow("TagNew", [TAGS], {"StringEquals": {f"aws:RequestTag/{tags.CLUSTER}": cluster}}),
            _allow("TagOwn", [TAGS], its_own),
            _allow("End", ENDS, its_own),
            *([{**_allow("PassToWorkers", [PASSES]), "Resource": roles}] if roles else []),
        ]
    )


def bucket(region: str, name: str) -> dict[str, Any]:
    """What a master needs for the bucket of its jobs.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
    """
    partition = {"cn": "aws-cn", "us-gov": "aws-us-gov"}
    begins = next((one for start, one in partition.items() if region.startswith(f"{start}-")), "aws")
    whole = f"arn:{begins}:s3:::{name}"
    return _document(
        [
            {**_allow("List", ("s3:GetBucketLocation", "s3:ListBucket")), "Resource": whole},
            {
                **_allow(
                    "Save",
                    ("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"),
                ),
                "Resource": f"{whole}/*",
            },
        ]
    )


def _document(statements: list[dict[str, Any]]) -> dict[str, Any]:
    return {"Version": VERSION, "Statement": statements}


def _allow(name: str, actions: Iterable[str], condition: dict[str, Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"Sid": name, "Effect": "Allow", "Action": sorted(actions), "Resource": "*"}
    return {**found, "Condition": condition} if condition else found
