"""The table of EC2's error codes: for each the exception, what happened, why, and the command that helps.

The classes of docs "EC2 API error codes" and of ParallelCluster's fail-over list.
"""

from __future__ import annotations

from dataclasses import dataclass

from infra.errors import (
    CapacityError,
    CloudError,
    CredentialsError,
    InfraError,
    PriceTooLow,
    QuotaError,
    UsageError,
)


@dataclass(frozen=True)
class Explanation:
    """One row: the error raised, and the three things its message says."""

    error: type[InfraError]
    what: str
    why: str
    fix: str


_QUOTAS = "https://console.aws.amazon.com/servicequotas/home/services/ec2/quotas"
_POOL = "sparknet-ec2 launch --fallback on-demand, or more types after --instance-type"

ERROR_TABLE: dict[str, Explanation] = {
    # another pool may have it
    "InsufficientInstanceCapacity": Explanation(
        CapacityError,
        "No capacity in this pool.",
        "AWS has no free machine of this type in this zone now.",
        _POOL,
    ),
    "InsufficientHostCapacity": Explanation(
        CapacityError, "No capacity in this pool.", "AWS has no free dedicated host in this zone now.", _POOL
    ),
    "InsufficientReservedInstanceCapacity": Explanation(
        CapacityError, "No reserved capacity left.", "More machines were asked for than are reserved.", _POOL
    ),
    "UnfulfillableCapacity": Explanation(
        CapacityError, "The fleet cannot be filled.", "No pool has as many machines as were asked for.", _POOL
    ),
    "InsufficientCapacity": Explanation(
        CapacityError,
        "No capacity in this pool.",
        "AWS has no free machine of this type in this zone now.",
        _POOL,
    ),
    "InsufficientFreeAddressesInSubnet": Explanation(
        CapacityError,
        "The subnet has too few free addresses.",
        "Every node takes one private address of it.",
        "sparknet-ec2 launch --subnet-id of a larger subnet, or --zone of another zone",
    ),
    "SpotMaxPriceTooLow": Explanation(
        PriceTooLow,
        "The spot price is above the maximum given.",
        "EC2 launches a spot machine only while its price is below --spot-price.",
        "sparknet-ec2 plan shows the price now; raise --spot-price or leave it out",
    ),
    "Unsupported": Explanation(
        CapacityError,
        "This zone does not offer this type.",
        "Not every zone has every family.",
        "sparknet-ec2 plan shows the zones of each type; leave out --zone",
    ),
    "InvalidFleetConfiguration": Explanation(
        CapacityError,
        "This zone does not offer this type.",
        "Not every zone has every family.",
        "sparknet-ec2 plan shows the zones of each type; leave out --zone",
    ),
    # the account's limits
    "VcpuLimitExceeded": Explanation(
        QuotaError,
        "The account's limit of vCPUs is reached.",
        "On-demand machines of this family may use only so many vCPUs in a region.",
        "aws service-quotas request-service-quota-increase --service-code ec2 --quota-code L-1216C47A (for "
        f"machines with GPUs L-DB2E81BA), or {_QUOTAS}",
    ),
    "MaxSpotInstanceCountExceeded": Explanation(
        QuotaError,
        "The account's limit of spot machines is reached.",
        "Spot machines of this family may use only so many vCPUs in a region; a new account starts at 0.",
        f"aws service-quotas request-service-quota-increase --service-code ec2 --quota-code L-3819A6DF, or "
        f"{_QUOTAS}",
    ),
    "InstanceLimitExceeded": Explanation(
        QuotaError,
        "The account's limit of machines is reached.",
        "So many machines of this type may run in a region.",
        f"sparknet-ec2 gc shows machines left running; otherwise {_QUOTAS}",
    ),
    "VolumeLimitExceeded": Explanation(
        QuotaError,
        "The account's limit of EBS storage is reached.",
        "So much storage of this type may exist in a region.",
        "sparknet-ec2 gc shows volumes left behind; otherwise a smaller --ebs-vol-size",
    ),
    "MaxFleetCountExceeded": Explanation(
        QuotaError,
        "The account's limit of fleets is reached.",
        "Every launch counts as a fleet until AWS forgets it, a day or two later.",
        f"wait an hour, or raise the limit at {_QUOTAS}",
    ),
    "SecurityGroupLimitExceeded": Explanation(
        QuotaError,
        "The account's limit of security groups is reached.",
        "Every cluster has a group of its own.",
        "sparknet-ec2 gc removes groups left behind",
    ),
    # who asks
    "UnauthorizedOperation": Explanation(
        CredentialsError,
        "These credentials may not make this call.",
        "A policy of the account does not allow it.",
        "aws sts decode-authorization-message --encoded-message ... shows which; ask for that permission",
    ),
    "AccessDenied": Explanation(
        CredentialsError,
        "These credentials may not make this call.",
        "A policy of the account does not allow it.",
        "ask the account's administrator for that permission",
    ),
    "AuthFailure": Explanation(
        CredentialsError,
        "AWS does not accept the credentials.",
        "The key is wrong, deleted, or not for this region.",
        "aws sts get-caller-identity; then aws configure",
    ),
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": Explanation(
        CredentialsError,
        "The account lacks the role that EC2 Fleet works with.",
        "Its first use creates the role, and these credentials may not.",
        "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com (as an administrator, "
        "once)",
    ),
    "InvalidClientTokenId": Explanation(
        CredentialsError,
        "AWS does not know the access key.",
        "The key is wrong or was deleted.",
        "aws configure",
    ),
    "SignatureDoesNotMatch": Explanation(
        CredentialsError,
        "The secret key does not fit the access key.",
        "One of them was copied wrongly.",
        "aws configure",
    ),
    "ExpiredToken": Explanation(
        CredentialsError,
        "The credentials have expired.",
        "Session credentials live for hours.",
        "aws sso login",
    ),
    "RequestExpired": Explanation(
        CredentialsError,
        "AWS refused the request as too old.",
        "The credentials have expired, or this machine's clock is wrong.",
        "aws sso login; then compare `date -u` with the real time",
    ),
    "OptInRequired": Explanation(
        CredentialsError,
        "The account has not opted in to this region or service.",
        "New regions are off until an administrator enables them.",
        "aws account enable-region --region-name REGION",
    ),
    "PendingVerification": Explanation(
        CredentialsError,
        "AWS is still verifying the account.",
        "New accounts are checked before their first machines, for up to four hours.",
        "wait, then run the same command again",
    ),
    "Blocked": Explanation(
        CredentialsError,
        "AWS has blocked the account.",
        "Usually a billing matter.",
        "https://console.aws.amazon.com/support/home",
    ),
    "NoCredentials": Explanation(
        CredentialsError,
        "No AWS credentials were found.",
        "Neither the environment, nor ~/.aws, nor an instance profile has any.",
        "aws configure, or aws sso login; or --cloud local to try without AWS",
    ),
    "ProfileNotFound": Explanation(
        CredentialsError,
        "There is no such profile.",
        "AWS_PROFILE names one that neither ~/.aws/config nor ~/.aws/credentials has.",
        "aws configure list-profiles, then export AWS_PROFILE=one of them, or unset AWS_PROFILE",
    ),
    "SignInExpired": Explanation(
        CredentialsError,
        "The sign-in to AWS has expired, or there was none.",
        "The profile signs in by a browser, and what that gave lives for hours.",
        "aws sso login (for a profile of aws login: aws login)",
    ),
    "InvalidConfiguration": Explanation(
        CredentialsError,
        "The AWS configuration cannot be used.",
        "A line of ~/.aws/config or ~/.aws/credentials is wrong, or names what is not there.",
        "aws configure list, which meets the same line; correct it",
    ),
    "CredentialsUnavailable": Explanation(
        CredentialsError,
        "The AWS credentials could not be had.",
        "What the profile takes them from (a credential_process, a role, an instance's metadata) failed.",
        "aws sts get-caller-identity, until it answers; a credential_process can be run by hand",
    ),
    # what was asked for
    "InvalidKeyPair.NotFound": Explanation(
        UsageError,
        "There is no key pair of that name in this region.",
        "Key pairs belong to one region.",
        "aws ec2 describe-key-pairs; or leave out --key-pair, and one is made for the cluster",
    ),
    "InvalidAMIID.NotFound": Explanation(
        UsageError,
        "There is no such image in this region.",
        "An image's id belongs to one region.",
        "leave out --ami to take the newest fitting one",
    ),
    "InvalidAMIID.Malformed": Explanation(
        UsageError, "That is not an image's id.", "They look like ami-0123456789abcdef0.", "leave out --ami"
    ),
    "InvalidAMIID.Unavailable": Explanation(
        UsageError,
        "The image cannot be used now.",
        "It is still being made, or was withdrawn.",
        "leave out --ami",
    ),
    "InvalidSubnetID.NotFound": Explanation(
        UsageError,
        "There is no such subnet in this region.",
        "A subnet's id belongs to one region.",
        "aws ec2 describe-subnets; or leave out --subnet-id",
    ),
    "InvalidVpcID.NotFound": Explanation(
        UsageError,
        "There is no such VPC in this region.",
        "A VPC's id belongs to one region.",
        "aws ec2 describe-vpcs; or leave out --vpc-id",
    ),
    "InvalidGroup.NotFound": Explanation(
        UsageError,
        "There is no such security group.",
        "It was deleted, or belongs to another VPC.",
        "aws ec2 describe-security-groups",
    ),
    "InvalidGroupId.Malformed": Explanation(
        UsageError,
        "That is not a security group's id.",
        "They look like sg-0123456789abcdef0.",
        "aws ec2 describe-security-groups",
    ),
    "InvalidPlacementGroup.Unknown": Explanation(
        UsageError,
        "There is no such placement group in this region.",
        "It has to exist before the launch.",
        "aws ec2 create-placement-group --strategy cluster --group-name NAME",
    ),
    "InvalidIamInstanceProfileArn.Malformed": Explanation(
        UsageError,
        "There is no such instance profile.",
        "It has to exist before the launch.",
        "aws iam list-instance-profiles",
    ),
    "InvalidInstanceType": Explanation(
        UsageError,
        "There is no such instance type in this region.",
        "It may be retired, or not offered here.",
        "sparknet-ec2 plan shows what the region offers",
    ),
    "InvalidInstanceType.NotFound": Explanation(
        UsageError,
        "There is no such instance type in this region.",
        "It may be retired, or not offered here.",
        "sparknet-ec2 plan shows what the region offers",
    ),
    "InvalidParameterCombination": Explanation(
        UsageError,
        "These options do not go together.",
        "EC2 refused the combination.",
        "sparknet-ec2 launch --dry-run shows what is asked for",
    ),
    "InvalidParameterValue": Explanation(
        UsageError,
        "EC2 does not take a value.",
        "One of the options has a value it does not know.",
        "sparknet-ec2 launch --dry-run shows what is asked for",
    ),
    "IdempotentParameterMismatch": Explanation(
        CloudError,
        "An earlier, unfinished launch asked for something else under the same token.",
        "A launch of this name was interrupted and run again with other options.",
        "sparknet-ec2 destroy, then launch again",
    ),
}
