"""Clusters: whether their nodes can be reached from here, and what is left of others."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import closing

from infra import orphans
from infra.cloud import Cloud, look, names
from infra.doctor.findings import Finding, note, ok, wrong
from infra.ec2 import keys, network
from infra.ec2.nodes import Node
from infra.errors import HostKeyChanged, HostRejectedLogin, InfraError, UsageError
from infra.node.host import on_all

LOGIN_SECONDS = 20


def groups(cloud: Cloud) -> Iterator[Finding]:
    """Whether each cluster's security group lets this machine in, at the address that it has now."""
    there = names(cloud)
    if not there:
        yield ok("network", "no cluster is there to be reached")
        return
    address = cloud.caller_address()
    for name in there:
        group = network.find_group(cloud.region, name)
        if group is None:
            yield wrong(
                "network", f"{name} has no security group of its own.", cloud.command("destroy", name)
            )
        elif not any(_holds(one, address) for one in group.ssh_from):
            allowed = ", ".join(group.ssh_from) or "nobody"
            yield wrong(
                "network",
                f"The security group of {name} lets in {allowed}, and this machine comes from {address}.",
                cloud.command("authorize", name),
            )
        else:
            yield ok("network", f"the security group of {name} lets in {address}")


def paths(cloud: Cloud) -> Iterator[Finding]:
    """A login at each node that runs."""
    for name in names(cloud):
        running = [node for node in look(cloud, name).nodes if node.state == "running"]
        errors = on_all(running, lambda node: _try(cloud, node)) if running else []
        failed = [(node, error) for node, error in zip(running, errors, strict=True) if error]
        for node, error in failed:
            yield wrong("path", f"{name}: {error}", _cure(cloud, node, error), status=error.exit_status)
        if running and not failed:
            yield ok("path", f"{name}: {len(running)} of {len(running)} nodes let us in")


def left_over(cloud: Cloud) -> Iterator[Finding]:
    """What costs money and belongs to no usable cluster."""
    found = orphans.find(cloud.region)
    for one in found:
        yield note(
            "orphans",
            f"{one.cluster}: {one.reason}; {len(one.resources)} resources are left of it, "
            f"${one.dollars_per_hour:.2f} an hour",
            f"sparknet-ec2 gc --yes{'' if cloud.kind == 'local' else f' --cloud {cloud.kind}'}"
            f" --region {cloud.region.name}",
        )
    if not found:
        yield ok("orphans", "nothing is left of clusters that nobody can use")


def _holds(allowed: str, address: str) -> bool:
    outer, inner = (ipaddress.ip_network(one, strict=False) for one in (allowed, address))
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _try(cloud: Cloud, node: Node) -> InfraError | None:
    try:
        with closing(cloud.connect(node)) as host:
            host.run("true", timeout_seconds=LOGIN_SECONDS)
    except InfraError as error:
        return error
    return None


def _cure(cloud: Cloud, node: Node, error: InfraError) -> str:
    match error:
        case HostKeyChanged():
            file = keys.known_hosts_file(cloud.home, cloud.region.name, node.cluster)
            return f"remove the line of {node.public_ip or node.private_ip} from {file}"
        case HostRejectedLogin() | UsageError():
            key = keys.key_file(cloud.home, cloud.region.name, node.cluster)
            return f"--identity-file with the key of the cluster ({key} of the machine that launched it)"
    return f"{cloud.command('authorize', node.cluster)}; if it still does not answer, " + cloud.command(
        "repair", node.cluster
    )
