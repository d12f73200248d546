"""Firewall: an instance's security groups as nft rules of its own network namespace. Pure, but for ``apply``.

As on EC2: what is not allowed is dropped without a word, answers to what was allowed pass, a rule may name an
address range or a group (whose members' private addresses are meant), and metadata is always reached. Each
rule counts its packets (``sudo nft list ruleset`` on the host) and names its group.
https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from infra.local.hosts.namespaces.commands import run

TABLE = "security_groups"
METADATA = "169.254.169.254"
EVERYTHING = "-1"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of a group: what may pass to or from one range of addresses or one group."""

    group: str
    protocol: str  # "tcp", "udp", "icmp", "-1" for all, or a protocol's number
    ports: tuple[int, int] | None  # for icmp: type and code, -1 for any
    cidr: str | None
    other_group: str | None
    is_egress: bool


def render(rules: Iterable[Rule], members: Mapping[str, Iterable[str]]) -> str:
    """The whole table, which replaces the one before in one step. ``members``: group -> private addresses."""
    lines: dict[bool, list[str]] = {False: [], True: []}
    for rule in rules:
        lines[rule.is_egress] += [_line(rule, source) for source in _peers(rule, members)]
    inbound, outbound = ("".join(f"    {line}\n" for line in lines[is_egress]) for is_egress in (False, True))
    return (
        f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\n"
        f"table inet {TABLE} {{\n"
        "  chain input {\n    type filter hook input priority filter; policy drop\n"
        '    ct state established,related accept\n    iifname "lo" accept\n'
        f'{inbound}    counter comment "refused"\n  }}\n'
        "  chain output {\n    type filter hook output priority filter; policy drop\n"
        f'    ct state established,related accept\n    oifname "lo" accept\n    ip daddr {METADATA} accept\n'
        f'{outbound}    counter comment "refused"\n  }}\n}}\n'
    )


def apply(text: str, *, network: str) -> None:
    """Put the table in place in that network namespace. Raises CommandError."""
    run("nft", "-f", "-", text=text, network=network)


def _peers(rule: Rule, members: Mapping[str, Iterable[str]]) -> list[str]:
    if rule.cidr is not None:
        return [rule.cidr]
    addresses = sorted(members.get(rule.other_group or "", ()))
    return [f"{{ {', '.join(addresses)} }}"] if addresses else []


def _line(rule: Rule, peer: str) -> str:
    side = "daddr" if rule.is_egress else "saddr"
    return f'ip {side} {peer} {_matched(rule)}counter accept comment "{rule.group}"'


def _matched(rule: Rule) -> str:
    if rule.protocol == EVERYTHING:
        return ""
    first, last = rule.ports or (-1, -1)
    if rule.protocol in ("tcp", "udp"):
        return f"meta l4proto {rule.protocol} " if first < 0 else f"{rule.protocol} dport {first}-{last} "
    if rule.protocol == "icmp":
        kind = f"icmp type {first} " if first >= 0 else "meta l4proto icmp "
        return kind + (f"icmp code {last} " if first >= 0 and last >= 0 else "")
    return f"meta l4proto {rule.protocol} "
