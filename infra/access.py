"""Access: from which addresses a cluster's nodes can be logged in to."""

from __future__ import annotations

from infra.cloud import Cloud, find
from infra.ec2 import network
from infra.errors import SetupError


def authorize(cloud: Cloud, name: str, address: str, *, keep: bool = False) -> tuple[str, ...]:
    """Let ``address`` (a CIDR) use ssh, and without ``keep`` nobody else; the addresses that no longer may.

    The new one first: nobody is locked out. Raises ClusterNotFound, SetupError if the cluster has no group.
    """
    find(cloud, name)
    group = network.find_group(cloud.region, name)
    if group is None:
        raise SetupError(
            f"The security group of {name} is gone; {cloud.command('destroy', name)} removes what is left of "
            "the cluster."
        )
    network.open_group(cloud.region, group, address)
    others = () if keep else tuple(one for one in group.ssh_from if one != address)
    for one in others:
        network.close_group(cloud.region, group, one)
    return others
