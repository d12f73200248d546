"""A bucket is made once, tagged and closed, priced, and removed with all that is in it, if it is ours."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import numpy as np
import pytest

from infra.cluster import Cloud
from infra.ec2 import buckets
from infra.ec2.region import Region
from infra.errors import CredentialsError, UsageError
from infra.local import LocalCloud
from infra.spec import ClusterSpec
from sparknet.checkpoint import Checkpoint, Checkpoints


@pytest.fixture
def name(simulated: Cloud) -> Iterator[str]:
    """Of a bucket that is gone after the test."""
    found = f"sparknet-{secrets.token_hex(6)}"
    yield found
    if buckets.is_ours(simulated.region, found):
        buckets.remove(simulated.region, found)


def test_it_is_made_once_tagged_and_closed_to_the_public(simulated: Cloud, name: str) -> None:
    region = simulated.region
    assert buckets.require(region, name, "ann") is True
    assert buckets.require(region, name, "bob") is False
    assert buckets.is_ours(region, name)
    closed = region.read("get_public_access_block", service="s3", Bucket=name)
    assert set(closed["PublicAccessBlockConfiguration"].values()) == {True}
    (rule,) = region.read("get_bucket_lifecycle_configuration", service="s3", Bucket=name)["Rules"]
    assert rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 7


def test_what_is_in_it_is_priced_and_goes_with_it(simulated: Cloud, name: str) -> None:
    region = simulated.region
    buckets.require(region, name, "ann")
    assert buckets.get(region, name, "a/b") is None
    for number in range(3):
        buckets.put(region, name, f"a/{number}", b"x" * 1000)
    assert buckets.get(region, name, "a/1") == b"x" * 1000
    assert buckets.keys(region, name, "a/") == ["a/0", "a/1", "a/2"]
    (found,) = (one for one in buckets.own(region) if one.name == name)
    assert (found.objects, found.size_bytes) == (3, 3000)
    assert found.per_month == pytest.approx(0.023 * 3000 / 2**30)
    assert buckets.remove(region, name) == 3
    assert buckets.remove(region, name) == 0
    assert name not in [one.name for one in buckets.own(region)]


def test_a_training_saves_there_and_finds_it_again(
    simulation: LocalCloud, simulated: Cloud, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    buckets.require(simulated.region, name, "ann")
    for variable, value in simulation.environment.items():
        monkeypatch.setenv(variable, value)
    saved = Checkpoints(f"s3://{name}/run")
    assert saved.latest() is None
    weights = np.arange(100_000, dtype=np.float32)
    saved.save(Checkpoint(round=3, lr=0.1, weights=weights))
    found = saved.latest()
    assert found is not None
    assert (found.round, np.array_equal(found.weights, weights)) == (3, True)
    head = simulated.region.read(
        "head_object", service="s3", Bucket=name, Key="run/round-00000003/weights.f32"
    )
    assert head["ContentLength"] == weights.nbytes


def test_versions_that_are_kept_go_with_it(simulated: Cloud, name: str) -> None:
    region = simulated.region
    buckets.require(region, name, "ann")
    region.change(
        "put_bucket_versioning", service="s3", Bucket=name, VersioningConfiguration={"Status": "Enabled"}
    )
    for data in (b"1", b"2", b"3"):
        buckets.put(region, name, "a", data)
    region.change("delete_object", service="s3", Bucket=name, Key="a")
    assert buckets.remove(region, name) == 4
    assert not buckets.is_ours(region, name)


def test_one_that_was_there_before_is_used_and_never_removed(simulated: Cloud, name: str) -> None:
    region = simulated.region
    region.change("create_bucket", service="s3", Bucket=name)
    assert buckets.require(region, name, "ann") is False
    with pytest.raises(UsageError, match="was not made by sparknet-ec2"):
        buckets.remove(region, name)
    assert name not in [one.name for one in buckets.own(region)]
    region.change("delete_bucket", service="s3", Bucket=name)


def test_one_in_another_region_is_refused(simulated: Cloud, name: str) -> None:
    there = simulated.region.at("eu-west-1")
    assert buckets.require(there, name, "ann") is True
    with pytest.raises(UsageError, match="is in eu-west-1, and the cluster would be in us-east-1"):
        buckets.require(simulated.region, name, "ann")
    assert name not in [one.name for one in buckets.own(simulated.region)]
    buckets.remove(there, name)


@pytest.mark.parametrize("code", ["AccessDenied", "BucketAlreadyExists"])
def test_one_of_somebody_else_is_one_sentence(
    simulation: LocalCloud, simulated: Cloud, name: str, code: str
) -> None:
    action = f"GET /{name}" if code == "AccessDenied" else f"PUT /{name}"
    simulation.control("POST", "faults", [{"action": action, "code": code}])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is somebody else's, or these credentials may not use it"):
        buckets.require(simulated.region, name, "ann")


def test_a_key_that_the_store_does_not_know_is_said_in_its_own_words(simulation: LocalCloud) -> None:
    stranger = Region(simulation.region, endpoint_url=simulation.endpoint_url, keys=("AKIA0", "no"))
    with pytest.raises(CredentialsError, match="AWS does not know the access key"):
        stranger.read("list_buckets", service="s3")
    stranger.close()


@pytest.mark.parametrize("name", ["ab", "A", "a_b", "-ab", "ab-", "192.168.1.1", "x" * 64, "a..b", "a.b"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a bucket's name"):
        ClusterSpec(bucket=name)
    ClusterSpec(bucket="my-bucket-1")
