"""Clean: what to do if a server died and its hosts did not. All is found by the home they belong to.

Usually there is nothing to do: hosts and network end with the pipe to their server, and the kernel takes back
their links, mounts and loop devices. The processes' marks, the link's name and the files behind the loops
find the rest.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from infra.errors import Leftovers
from infra.local.hosts.namespaces.blocks import loops_below, release
from infra.local.hosts.namespaces.network import link_of, remove_link
from infra.local.hosts.processes import end_processes_of_home

DEADLINE_SECONDS = 20.0
PAUSE_SECONDS = 0.05


def clean(home: Path) -> None:
    """End and remove whatever the embedded cloud of ``home`` has left. Raises Leftovers with what stayed."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return  # then there was nothing of the kind
    deadline = time.monotonic() + DEADLINE_SECONDS
    while left := leftovers(home):
        if time.monotonic() > deadline:
            raise Leftovers(f"of the embedded cloud in {home} there is still: {', '.join(left)}")
        end_processes_of_home(home)
        remove_link(link_of(home))
        for device in loops_below(home):
            release(device)
        time.sleep(PAUSE_SECONDS)


def leftovers(home: Path) -> list[str]:
    """Link, loop devices and mounts of that home."""
    link = link_of(home)
    found = [f"the link {link}"] if Path(f"/sys/class/net/{link}").exists() else []
    found += [f"{device}" for device in loops_below(home)]
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return found + [f"the mount {path}" for path in mounted if Path(path).is_relative_to(home)]
