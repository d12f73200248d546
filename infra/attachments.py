"""Attachments: which nodes lack a volume that they were launched with: one that was detached is silent.

A node goes on without it, on the disks that are left, and after the next change of its configuration nothing
on the node tells that there was one. EC2 knows: the launch template has them all.
"""

from __future__ import annotations

from collections.abc import Iterable

from infra.ec2 import template
from infra.ec2.nodes import Node
from infra.ec2.region import Region


def lacking(region: Region, cluster: str, nodes: Iterable[Node]) -> dict[str, str]:
    """Instance id -> what it lacks, of those of ``nodes`` that have fewer volumes than they came with."""
    wanted = template.spill_count(region, cluster)
    return {
        node.id: f"{len(node.volumes)} of its {wanted} volumes are attached: one was detached"
        for node in nodes
        if len(node.volumes) < wanted
    }
