"""Buckets: where the state of jobs outlives every machine: made if missing, tagged, closed to the public.

A bucket of ours carries ``sparknet:bucket``, whichever clusters use it; one that was there before is used as
it is, and never removed. Names are the same for all of AWS.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infra import aws
from infra.ec2 import tags
from infra.ec2.error_codes import explain
from infra.ec2.region import ApiError, Region
from infra.errors import InfraError, UsageError

ABSENT = ("404", "NoSuchBucket")
FORBIDDEN = ("403", "AccessDenied")
BATCH = 1000  # objects that one call removes
GIB = 1 << 30
UNFINISHED_DAYS = 7  # until parts of an upload that was cut off are removed


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A bucket of ours: how much is in it, and what that costs a month, in dollars."""

    name: str
    region: str
    size_bytes: int
    objects: int

    @property
    def per_month(self) -> float:
        return aws.storage_prices()["s3"] * self.size_bytes / GIB


def require(region: Region, name: str, owner: str) -> bool:
    """Make the bucket unless it is there; whether it was made.

    Raises UsageError if it is somebody else's, or in another region.
    """
    where = _location(region, name)
    if where is None:
        _make(region, name, owner)
        return True
    if where != region.name:
        raise UsageError(
            f"The bucket {name} is in {where}, and the cluster would be in {region.name}: what travels "
            f"between regions costs, and is slow. Name another --bucket, or launch in {where}."
        )
    return False


def own(region: Region) -> list[Bucket]:
    """The buckets of ours in this region, by name. A call for each bucket of the account."""
    found = []
    for one in region.read("list_buckets", service="s3").get("Buckets", []):
        if is_ours(region, one["Name"]) and _location(region, one["Name"]) == region.name:
            found.append(look(region, one["Name"]))
    return sorted(found, key=lambda bucket: bucket.name)


def is_ours(region: Region, name: str) -> bool:
    """Whether it was made by this program; False where that may not be asked."""
    try:
        answer = region.attempt("get_bucket_tagging", service="s3", Bucket=name)
    except (ApiError, InfraError):  # no tags, of another region, or somebody else's
        return False
    return tags.BUCKET in tags.as_dict(answer.get("TagSet"))


def look(region: Region, name: str) -> Bucket:
    """What is in it."""
    sizes = [one["Size"] for one in _objects(region, name)]
    return Bucket(name=name, region=region.name, size_bytes=sum(sizes), objects=len(sizes))


def remove(region: Region, name: str) -> int:
    """Remove the bucket with all that is in it; how many objects that was. What is gone already is no error.

    Raises UsageError for a bucket that is not ours.
    """
    if _location(region, name) is None:
        return 0
    if not is_ours(region, name):
        raise UsageError(
            f"The bucket {name} was not made by sparknet-ec2, which therefore leaves it alone; "
            f"aws s3 rb --force s3://{name} removes it with all that is in it."
        )
    count = 0
    while batch := _first_versions(region, name):
        region.change(
            "delete_objects",
            service="s3",
            Bucket=name,
            Delete={"Objects": batch, "Quiet": True},
            tolerate=ABSENT,
        )
        count += len(batch)
    region.change("delete_bucket", service="s3", Bucket=name, tolerate=ABSENT)
    return count


def put(region: Region, name: str, key: str, data: bytes) -> None:
    region.change("put_object", service="s3", Bucket=name, Key=key, Body=data)


def get(region: Region, name: str, key: str) -> bytes | None:
    """None if there is no such object."""
    try:
        answer = region.attempt("get_object", service="s3", Bucket=name, Key=key)
    except ApiError as error:
        if error.code in ("NoSuchKey", *ABSENT):
            return None
        raise explain(error.code, error.message, error.operation) from None
    return bytes(answer["Body"].read())


def keys(region: Region, name: str, prefix: str) -> list[str]:
    """Of the objects that begin so, sorted."""
    return sorted(one["Key"] for one in _objects(region, name, prefix))


def _make(region: Region, name: str, owner: str) -> None:
    place = {"LocationConstraint": region.name} if region.name != "us-east-1" else None
    more: dict[str, Any] = {"CreateBucketConfiguration": place} if place else {}
    try:
        region.attempt("create_bucket", service="s3", Bucket=name, **more)
    except ApiError as error:
        if error.code == "BucketAlreadyExists":
            raise _taken(name) from None
        if error.code != "BucketAlreadyOwnedByYou":  # by an attempt whose answer was lost
            raise explain(error.code, error.message, error.operation) from None
    known = {tags.BUCKET: name, tags.OWNER: owner}
    pairs = [{"Key": key, "Value": value} for key, value in known.items()]
    region.change("put_bucket_tagging", service="s3", Bucket=name, Tagging={"TagSet": pairs})
    closed = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    region.change(
        "put_public_access_block",
        service="s3",
        Bucket=name,
        PublicAccessBlockConfiguration=dict.fromkeys(closed, True),
    )
    unfinished = {
        "ID": "unfinished uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UNFINISHED_DAYS},
    }
    region.change(
        "put_bucket_lifecycle_configuration",
        service="s3",
        Bucket=name,
        LifecycleConfiguration={"Rules": [unfinished]},
    )


def _location(region: Region, name: str) -> str | None:
    """The region of the bucket; None if there is none. Raises UsageError if it is somebody else's."""
    try:
        answer = region.attempt("get_bucket_location", service="s3", Bucket=name)
    except ApiError as error:
        if error.code in ABSENT:
            return None
        if error.code in FORBIDDEN:
            raise _taken(name) from None
        raise explain(error.code, error.message, error.operation) from None
    return str(answer.get("LocationConstraint") or "us-east-1")


def _taken(name: str) -> UsageError:
    return UsageError(
        f"The bucket {name} is somebody else's, or these credentials may not use it: names of buckets are "
        "the same for everybody. Name another --bucket."
    )


def _objects(region: Region, name: str, prefix: str = "") -> Iterator[dict[str, Any]]:
    more: dict[str, Any] = {}
    while True:
        answer = region.read("list_objects_v2", service="s3", Bucket=name, Prefix=prefix, **more)
        yield from answer.get("Contents", ())
        if not answer.get("IsTruncated"):
            return
        more = {"ContinuationToken": answer["NextContinuationToken"]}


def _first_versions(region: Region, name: str) -> list[dict[str, str]]:
    """Of all that is in the bucket, as much as one call removes: a bucket may keep what was overwritten."""
    answer = region.change("list_object_versions", service="s3", Bucket=name, MaxKeys=BATCH, tolerate=ABSENT)
    found = [*(answer or {}).get("Versions", ()), *(answer or {}).get("DeleteMarkers", ())]
    return [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
