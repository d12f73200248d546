"""Security groups as nft rules: what each kind of rule becomes, and that nft itself takes the result."""

from __future__ import annotations

import subprocess

import pytest

from infra.local.hosts.namespaces.commands import find
from infra.local.hosts.namespaces.firewall import Rule, render
from infra.local.hosts.namespaces.requirements import missing

MEMBERS = {"sg-1": ["10.20.0.5", "10.20.0.4"], "sg-empty": []}


def rule(
    protocol: str,
    ports: tuple[int, int] | None = None,
    *,
    cidr: str | None = None,
    other: str | None = None,
    is_egress: bool = False,
) -> Rule:
    return Rule(
        group="sg-1", protocol=protocol, ports=ports, cidr=cidr, other_group=other, is_egress=is_egress
    )


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            rule("tcp", (22, 22), cidr="198.18.0.1/32"),
            "ip saddr 198.18.0.1/32 tcp dport 22-22 counter accept",
        ),
        (rule("udp", (1, 9), cidr="0.0.0.0/0"), "ip saddr 0.0.0.0/0 udp dport 1-9 counter accept"),
        (rule("tcp", (-1, -1), cidr="10.0.0.0/8"), "ip saddr 10.0.0.0/8 meta l4proto tcp counter accept"),
        (rule("-1", other="sg-1"), "ip saddr { 10.20.0.4, 10.20.0.5 } counter accept"),
        (rule("icmp", (8, -1), cidr="0.0.0.0/0"), "ip saddr 0.0.0.0/0 icmp type 8 counter accept"),
        (rule("icmp", (3, 4), cidr="0.0.0.0/0"), "ip saddr 0.0.0.0/0 icmp type 3 icmp code 4 counter accept"),
        (rule("icmp", (-1, -1), cidr="0.0.0.0/0"), "ip saddr 0.0.0.0/0 meta l4proto icmp counter accept"),
        (rule("50", cidr="0.0.0.0/0"), "ip saddr 0.0.0.0/0 meta l4proto 50 counter accept"),
        (rule("-1", cidr="0.0.0.0/0", is_egress=True), "ip daddr 0.0.0.0/0 counter accept"),
    ],
)
def test_each_rule_becomes_one_line_that_nft_understands(given: Rule, line: str) -> None:
    text = render([given], MEMBERS)
    assert f'{line} comment "sg-1"' in text
    check(text)


def test_a_group_without_members_lets_nobody_in() -> None:
    assert "saddr" not in render([rule("tcp", (22, 22), other="sg-empty")], MEMBERS)


def test_without_rules_all_is_dropped_but_answers_itself_and_metadata() -> None:
    text = render([], {})
    assert text.count("policy drop") == 2
    accepted = [line.strip() for line in text.splitlines() if line.endswith("accept")]
    assert accepted == [
        "ct state established,related accept",
        'iifname "lo" accept',
        "ct state established,related accept",
        'oifname "lo" accept',
        "ip daddr 169.254.169.254 accept",
    ]
    check(text)


def check(text: str) -> None:
    """Put it in place in a network namespace that ends with the command, where that can be done."""
    if not missing():
        command = ["unshare", "--net", find("nft") or "nft", "-f", "-"]
        subprocess.run(command, input=text, text=True, check=True, timeout=10)
