"""Job storage: the bucket in which a cluster's jobs save, and the right of its master to use it.

Drivers run on the master, and nothing else of a training reads or writes there.
"""

from __future__ import annotations

from infra import policies
from infra.cloud import Cloud, Cluster
from infra.ec2 import buckets, network, profiles
from infra.ec2.network import SecurityGroup
from infra.ec2.tags import ClusterTags
from infra.events import Emit, Note
from infra.spec import ClusterSpec


def prepare(
    cloud: Cloud, spec: ClusterSpec, cluster_tags: ClusterTags, group: SecurityGroup, emit: Emit
) -> str:
    """Make the bucket unless it is there; the name of the instance profile that the master is to have.

    Empty where that is the user's own. Raises UsageError for a bucket that cannot be used, CredentialsError
    if no role may be made.
    """
    if buckets.require(cloud.region, spec.bucket, cluster_tags.owner):
        emit(Note(text=f"The bucket {spec.bucket} is made; destroy --bucket removes it with the cluster."))
    network.note_bucket(cloud.region, group, spec.bucket)
    if spec.instance_profile:
        emit(
            Note(
                text=f"The role of {spec.instance_profile} has to allow what is printed by: sparknet-ec2 "
                f"iam-policy bucket --bucket {spec.bucket}"
            )
        )
        return ""
    allowed = policies.bucket(cloud.region.name, spec.bucket)
    return profiles.make(cloud.region, cluster_tags, allowed, called=profiles.BUCKET)


def turn_on(cloud: Cloud, cluster: Cluster, profile: str) -> None:
    """Let the master use the bucket."""
    if profile and cluster.master is not None:
        profiles.associate(cloud.region, cluster.master.id, profile)
