"""Network: that of one embedded cloud, a namespace with a bridge, a router and their addresses.

All that this machine sees of it is one link, ``sn<hash of the home>``, and the routes through that link.
Hosts may answer what comes from this machine but begin nothing towards it; between them everything may pass,
since refusing is the business of their own firewalls. The router translates public addresses to private ones,
as EC2's gateway does: a host that talks to another's public address is seen under its own public one.
Packets to unused addresses are dropped.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import time
import zlib
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from infra.errors import SetupError
from infra.local.hosts.namespaces import address_blocks
from infra.local.hosts.namespaces.commands import CommandError, ip, run
from infra.local.hosts.namespaces.setns import in_network
from infra.local.hosts.processes import HOME_MARK

BRIDGE = "br0"
BRIDGE_ADDRESS = "0a:58:a9:fe:a9:fe"
METADATA_ADDRESS = "169.254.169.254"
START_SECONDS, END_SECONDS = 10.0, 10.0
SETTINGS = {
    "ipv4/ip_forward": 1,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/all/send_redirects": 0,
    "ipv4/conf/default/send_redirects": 0,
    "ipv6/conf/all/disable_ipv6": 1,
    "bridge/bridge-nf-call-iptables": 0,  # where there is br_netfilter: bridged packets pass
}
ROUTER = f"""
table ip router {{
  map private_of {{ type ipv4_addr : ipv4_addr; }}
  map public_of {{ type ipv4_addr : ipv4_addr; }}
  chain inbound {{
    type nat hook prerouting priority dstnat
    dnat to ip daddr map @private_of
  }}
  chain outbound {{
    type nat hook postrouting priority srcnat
    iifname "{BRIDGE}" oifname "{BRIDGE}" ct status dnat snat to ip saddr map @public_of
  }}
  chain unused_addresses {{
    type filter hook output priority filter
    icmp type destination-unreachable icmp code host-unreachable drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop
    ct state established,related accept
    iifname "uplink" accept
    iifname "{BRIDGE}" oifname "{BRIDGE}" accept
  }}
}}
"""


class Network:
    """There from ``start`` to ``end``; it ends with this process, too."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.link = link_of(home)
        self._first = zlib.crc32(str(home).encode())
        self._holder: subprocess.Popen[bytes] | None = None
        self._uplink = IPv4Network("198.18.0.0/23")
        self._slice: IPv4Network | None = None
        self._translated: dict[str, str] = {}
        self.blocks: list[IPv4Network] = []

    @property
    def holder(self) -> int:
        """The process whose network namespace it is."""
        assert self._holder is not None, "start comes first"
        return self._holder.pid

    @property
    def network(self) -> str:
        """The file of the namespace."""
        return f"/proc/{self.holder}/ns/net"

    @property
    def caller(self) -> str:
        """The address from which hosts see connections of this machine."""
        return str(self._uplink[1])

    def start(self) -> None:
        """Raises SetupError or CommandError."""
        remove_link(self.link)
        self._holder = subprocess.Popen(
            ["unshare", "--net", "cat"],  # ends with its input, which is this process
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, HOME_MARK: str(self._home)},
        )
        self._wait_for_namespace()
        try:
            self._build()
        except Exception:
            self.end()
            raise

    def claim(self) -> str:
        """A network for a VPC that nobody else of this machine has. Raises SetupError."""
        router = str(self._uplink[2])
        block = address_blocks.claim(
            address_blocks.vpc_candidates(self._first),
            lambda network: ip(f"route add {network} via {router} dev {self.link}\n"),
            purpose="a VPC",
        )
        ip(f"addr add {block[1]}/{block.prefixlen} dev {BRIDGE}\n", network=self.network)
        self.blocks.append(block)
        return str(block)

    def router_of(self, address: str) -> tuple[str, int]:
        """The router's address and the length of the network's prefix, for a host. Raises CommandError."""
        for block in self.blocks:
            if IPv4Address(address) in block:
                return str(block[1]), block.prefixlen
        raise CommandError(
            f"{address} is in none of this cloud's networks ({', '.join(map(str, self.blocks))}): hosts can "
            "only be in the default VPC"
        )

    def public_addresses(self) -> Iterator[str]:
        """All there are, those of 203.0.113.0/24 first."""
        if self._slice is not None:
            ends = ("203.0.113.0", "203.0.113.255")
            yield from (str(address) for address in self._slice if str(address) not in ends)
        yield from (str(address) for address in list(self._uplink)[3:-1])

    def disconnect(self, port: str) -> None:
        """Remove the port of a host that has ended, and with it the host's own end.

        The kernel keeps the network of a host that was cut off for as long as its connections want to say
        goodbye; another host may have its address by then.
        """
        with contextlib.suppress(CommandError):
            ip(f"link delete {port}\n", network=self.network)

    def translate(self, private_of: Mapping[str, str]) -> None:
        """Lead each public address to its private one, and nothing else. Raises CommandError."""
        if self._translated == private_of:
            return
        lines = ["flush map ip router private_of", "flush map ip router public_of"]
        for public, private in private_of.items():
            lines.append(f"add element ip router private_of {{ {public} : {private} }}")
        for private, public in {private: public for public, private in private_of.items()}.items():
            lines.append(f"add element ip router public_of {{ {private} : {public} }}")
        run("nft", "-f", "-", text="\n".join(lines) + "\n", network=self.network)
        self._translated = dict(private_of)

    def listen(self, port: int) -> socket.socket:
        """A listening socket at the metadata service's address, which hosts reach through their router."""
        return in_network(self.network, lambda: socket.create_server((METADATA_ADDRESS, port), backlog=64))

    def end(self) -> None:
        """Remove the link, its routes, and with the last host the namespace itself."""
        if self._holder is None:
            return
        remove_link(self.link)
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        try:
            self._holder.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()
        self._holder = None

    def _build(self) -> None:
        settings = "".join(
            f"[ ! -e /proc/sys/net/{k} ] || echo {v} >/proc/sys/net/{k}\n" for k, v in SETTINGS.items()
        )
        run("sh", "-e", "-s", text=settings, network=self.network)
        ip(
            # of its own: otherwise it has that of one of its ports, and another one when that host ends
            f"link add {BRIDGE} address {BRIDGE_ADDRESS} type bridge forward_delay 0\n"
            f"link set lo up\nlink set {BRIDGE} up\n"
            f"addr add {METADATA_ADDRESS}/32 dev {BRIDGE}\n"
            f"link add uplink type veth peer name {self.link} netns {os.getpid()}\n"
            "link set uplink up\n",
            network=self.network,
        )
        run("nft", "-f", "-", text=ROUTER, network=self.network)
        ip(f"link set {self.link} addrgenmode none up\n")
        self._uplink = address_blocks.claim(
            address_blocks.uplink_candidates(self._first),
            lambda network: ip(f"route add {network} dev {self.link}\n"),
            purpose="the way to the hosts",
        )
        near, far = self._uplink[1], self._uplink[2]
        ip(f"addr add {far} peer {near} dev uplink\n", network=self.network)
        ip(f"addr add {near} peer {far} dev {self.link}\n")
        ip(f"route replace {self._uplink} via {far} dev {self.link}\n")
        with contextlib.suppress(SetupError):  # eight clouds at once have one; the ninth does without
            self._slice = address_blocks.claim(
                address_blocks.public_candidates(),
                lambda network: ip(f"route add {network} via {far} dev {self.link}\n"),
                purpose="public addresses",
            )

    def _wait_for_namespace(self) -> None:
        own, deadline = Path("/proc/self/ns/net").readlink(), time.monotonic() + START_SECONDS
        while Path(f"/proc/{self.holder}/ns/net").readlink() == own:
            if time.monotonic() > deadline:
                raise SetupError(f"no network namespace could be made within {START_SECONDS:g} s")
            time.sleep(0.005)


def link_of(home: Path) -> str:
    """The name of the one link that a cloud has on this machine."""
    return f"sn{hashlib.sha256(str(home).encode()).hexdigest()[:10]}"


def remove_link(name: str) -> None:
    """With it go its addresses, its routes, and its other end. Does nothing if there is none."""
    if Path(f"/sys/class/net/{name}").exists():
        with contextlib.suppress(CommandError):
            run("ip", "link", "delete", name)
