"""How much memory this process may use: what the machine has left, or its container, or Spark's limit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def share_of_memory(tasks: int, root: Path = Path("/")) -> int:
    """Bytes that one of ``tasks`` equal processes may fill with records: half of its part of what is free.

    With ``spark.executor.pyspark.memory``, which Spark sets for each process, half of that at most.
    """
    limit = os.environ.get("PYSPARK_EXECUTOR_MEMORY_MB")
    shares = [available(root) // max(1, tasks), *([int(limit) << 20] if limit else [])]
    return min(shares) // 2


def available(root: Path = Path("/")) -> int:
    """Bytes that can be taken without swapping, by the kernel's estimate and the container's limit."""
    return min(_rooms(root))


def _rooms(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        yield next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    for limit, usage in _CGROUPS:
        try:
            yield max(0, int((root / limit).read_text()) - int((root / usage).read_text()))
        except (OSError, ValueError):  # no such limit ("max"), or no such file
            continue
