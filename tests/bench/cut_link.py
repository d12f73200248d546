"""A link between two hosts and the driver is cut for a while: training goes on, and no rounds are lost.

    ./run bench cut_link                                       a ring, cut for 120 s; needs root
    ./run bench cut_link --args '--exchange star --seconds 30'

Each host is a Spark worker daemon in a network namespace of its own. While the link is down neither end is
told anything, as when a cable is pulled. Rounds are capped by time, so that as many pass meanwhile on any
machine. Exit status 0 if the app ends with 0, without a traceback, has gone back no further than
``--copy-every`` allows, and both workers are there in the end.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from tests.bench.lost_machines import App, Case
from tests.bench.standalone import Cluster

_BRIDGE, _NETWORK = "sparknet-cut", "10.213.77"
_ROUND_SECONDS = 0.25


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=not check)


@contextmanager
def network(hosts: int) -> Iterator[None]:
    """A bridge with the driver's address, and a namespace with a link to it for each host."""
    with ExitStack() as undo:
        ip("link", "add", _BRIDGE, "type", "bridge")
        undo.callback(ip, "link", "del", _BRIDGE, check=False)
        ip("addr", "add", f"{_NETWORK}.1/24", "dev", _BRIDGE)
        ip("link", "set", _BRIDGE, "up")
        for host in range(1, hosts + 1):
            name, link = f"{_BRIDGE}-{host}", f"sn-cut-{host}"
            ip("netns", "add", name)
            undo.callback(ip, "netns", "del", name, check=False)
            ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", link, "master", _BRIDGE, "up")
            ip("-n", name, "addr", "add", f"{_NETWORK}.{host + 1}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield


class NetworkedCluster(Cluster):
    address = f"{_NETWORK}.1"

    def address_of(self, host: int) -> str:
        return f"{_NETWORK}.{host + 1}"

    def inside(self, host: int) -> tuple[str, ...]:
        return ("ip", "netns", "exec", f"{_BRIDGE}-{host}")


def cut_for(seconds: float, over: threading.Event) -> None:
    ip("link", "set", "sn-cut-1", "down")
    over.wait(seconds)
    ip("link", "set", "sn-cut-1", "up")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exchange", choices=["star", "ring"], default="ring")
    parser.add_argument("--seconds", type=float, default=120, help="how long it is cut (120)")
    parser.add_argument("--rounds", type=int, default=900, help="a quarter of a second each (900)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # hosts and links go with it
    case = Case(
        hosts=2,
        options=(
            *("--workers", "2", "--test-every", "0"),
            *("--tau", "10000", "--time-cap", str(_ROUND_SECONDS), "--sampling", "epoch"),
            *("--exchange", options.exchange, "--rounds", str(options.rounds)),
        ),
        after=23,
        strike=lambda _, over: cut_for(options.seconds, over),
    )
    with (
        tempfile.TemporaryDirectory(prefix="sparknet-cut-", ignore_cleanup_errors=True) as made,
        network(2),
        NetworkedCluster(Path(made), 2) as cluster,
    ):
        started = time.monotonic()
        app = App(cluster, Path(made), case, address=NetworkedCluster.address)
        wrong = app.run()
        records = (Path(made) / "output" / "metrics.jsonl").read_text().splitlines()
        members = [len(json.loads(line)["members"]) for line in records]
        if wrong is None and members[-1] != 2:
            wrong = "one worker has not come back"
        click.echo(
            f"{options.exchange}: {len(members)} rounds, {members.count(1)} of them by one worker, in "
            f"{time.monotonic() - started:.0f} s, {app.summary}: {wrong or 'well'}"
        )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
