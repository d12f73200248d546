"""The share of this machine's processors and memory that each of its hosts may count on.

Nothing enforces it: hosts read it in ``SPARKNET_HOST_CPUS`` and ``SPARKNET_HOST_MEMORY_MIB``, and
``nproc`` says so.
"""

from __future__ import annotations

import os

import psutil

MEMORY_FOR_HOSTS = 0.75  # the rest is for the machine's own programs and its file cache


def environment(hosts: int) -> dict[str, str]:
    """Variables for a command on one of ``hosts`` hosts."""
    cpus = max(1, processors() // max(1, hosts))
    memory_mib = int(psutil.virtual_memory().total * MEMORY_FOR_HOSTS / max(1, hosts)) >> 20
    return {"SPARKNET_HOST_CPUS": str(cpus), "SPARKNET_HOST_MEMORY_MIB": str(memory_mib)}


def processors() -> int:
    """How many this process may run on, which may be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
