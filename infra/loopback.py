"""Loopback: what this machine says to itself, and a node to its metadata, never passes an HTTP proxy."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

METADATA_ADDRESS = "169.254.169.254"  # of every instance, link-local
# Programs differ in what they read: names and single addresses all of them, a range curl and requests alone.
UNPROXIED = ("localhost", "127.0.0.1", "::1", "127.0.0.0/8", METADATA_ADDRESS)
VARIABLES = ("no_proxy", "NO_PROXY")  # where both are set, some programs read only the first


def is_loopback(url: str) -> bool:
    """Whether ``url`` leads to this very machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def unproxied(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables with which programs go past the proxies of ``environment`` to this machine; empty if it
    names no proxy.
    """
    if not any(name.lower().endswith("_proxy") and name not in VARIABLES for name in environment):
        return {}
    said = ",".join(environment.get(name, "") for name in VARIABLES)
    hosts = dict.fromkeys(word.strip() for word in [*said.split(","), *UNPROXIED] if word.strip())
    return dict.fromkeys(VARIABLES, ",".join(hosts))


def go_past_proxies() -> None:
    """Let this process, and all it starts, reach this machine without the proxies of its environment."""
    os.environ.update(unproxied(os.environ))
