"""What the workers of a cluster on this machine could do while its processes were killed, stopped and slowed.

Sampled from /proc, twenty times a second: of each host, whether its Python worker is there and runs. A
host whose worker is not there, or stopped (state T), can do nothing at that moment; one that is slowed, being
stopped for a share of the time, does the rest of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.bench.standalone import Cluster, Host

_SAMPLE_SECONDS = 0.05
# How often it is looked which processes there are.
_LOOK_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True)
class Sample:
    """At a moment, by ``time.monotonic``: how many workers run, and of how many hosts the machine is there.

    A machine is there, though its worker may have to start again, unless all of it is stopped, or has been
    killed and no other has come in its place.
    """

    at: float
    workers: int
    machines: int


@dataclass
class _Seen:
    """The daemon and the Python workers that a host had, when it was looked last."""

    daemon: int = 0
    pythons: Sequence[int] = ()


class Watch:
    """Samples the hosts of ``cluster`` for as long as it is entered."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.samples = cluster, list[Sample]()
        self._seen: list[_Seen] = []
        self._looked = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def workers(self, begin: float, end: float) -> float:
        """How many workers ran between two moments, on average."""
        found = [sample.workers for sample in self.samples if begin <= sample.at < end]
        return sum(found) / len(found)

    def machines(self, begin: float, end: float) -> float:
        """How many machines were there between two moments, on average."""
        found = [sample.machines for sample in self.samples if begin <= sample.at < end]
        return sum(found) / len(found)

    def _run(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            now = time.monotonic()
            if now >= self._looked + _LOOK_SECONDS:
                self._looked, self._seen = now, [_seen(host) for host in list(self.cluster.hosts)]
            self.samples.append(
                Sample(
                    at=now,
                    workers=sum(any(map(runs, seen.pythons)) for seen in self._seen),
                    machines=sum(_is_there(seen) for seen in self._seen),
                )
            )


def runs(pid: int) -> bool:
    """Whether there is such a process, and it is neither stopped nor dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in "TtZX"


def _seen(host: Host) -> _Seen:
    return _Seen(daemon=host.daemon.pid, pythons=host.pythons)


def _is_there(seen: _Seen) -> bool:
    pythons = [pid for pid in seen.pythons if Path(f"/proc/{pid}").exists()]
    return runs(seen.daemon) and (not pythons or any(map(runs, pythons)))
