"""Networks of this machine: which are in use, and which an embedded cloud may take for itself.

A claim is a route: the kernel refuses a second one to the same network, so two clouds never get the same, and
it goes with the link it leads to. Nothing that this machine already routes anywhere is ever taken.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Network

from infra.errors import SetupError
from infra.local.hosts.namespaces.commands import CommandError, run

ADDRESS_BITS = 16  # of a VPC: as large as AWS's default one


def vpc_candidates(first: int) -> Iterator[IPv4Network]:
    """Private networks, in an order that is the same for the same ``first``."""
    tens = [IPv4Network(f"10.{number}.0.0/{ADDRESS_BITS}") for number in range(16, 251)]
    start = first % len(tens)
    others = (f"172.{number}.0.0/{ADDRESS_BITS}" for number in range(16, 32))
    return itertools.chain(tens[start:], tens[:start], map(IPv4Network, others))


def uplink_candidates(first: int) -> list[IPv4Network]:
    """Pieces of RFC 2544's 198.18.0.0/15: for the machine's end, and public addresses beyond the first."""
    pieces = list(IPv4Network("198.18.0.0/15").subnets(new_prefix=23))
    start = first % len(pieces)
    return pieces[start:] + pieces[:start]


def public_candidates() -> list[IPv4Network]:
    """Pieces of RFC 5737's 203.0.113.0/24: the public addresses of up to eight clouds' first hosts."""
    return list(IPv4Network("203.0.113.0/24").subnets(new_prefix=27))


def claim(
    candidates: Iterable[IPv4Network], add_route: Callable[[IPv4Network], None], *, purpose: str
) -> IPv4Network:
    """The first network that is in no use and that ``add_route`` gets. Raises SetupError if there is none."""
    taken = in_use()
    for network in candidates:
        if any(network.overlaps(other) for other in taken):
            continue
        try:
            add_route(network)
        except CommandError as error:
            if "File exists" not in str(error):
                raise
            continue
        return network
    raise SetupError(
        f"no network for {purpose} is free on this machine: end other embedded clouds (`sparknet-ec2 local "
        "stop`), or see `ip route` for what takes them"
    )


def in_use() -> list[IPv4Network]:
    """Every network and address that this machine has a route to, other than the default one."""
    routes = json.loads(run("ip", "-json", "-4", "route", "show", "table", "all") or "[]")
    return [IPv4Network(route["dst"]) for route in routes if route["dst"] not in ("default", "0.0.0.0/0")]
