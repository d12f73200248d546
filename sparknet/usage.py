"""What a worker uses of its machine: measured about once a second, sent with the reports of its rounds.

    meter = Meter()
    meter.read(lambda: Holding(records=25_000, bytes_=77_000_000))     None within a second of the last

A reading takes less than a millisecond. Processors, memory and network are read by psutil; a GPU by
nvidia-smi, which comes with its driver, in a thread of its own, since that takes up to a second.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Between two readings, and between two of a GPU.
_SECONDS, _GPU_SECONDS = 1.0, 5.0
_SMI_DEADLINE_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Usage:
    """A worker's share of its machine, and the machine's whole; bytes, and shares from 0 to 1.

    ``busy_cores`` is how many of the machine's ``cores`` the worker's process kept busy on average since the
    last reading, ``load`` the share of them that anybody did. ``memory`` is what the process has in memory
    (RSS) of ``total_memory``, of which ``used_memory`` is taken. Of its ``records``, ``held_bytes`` in all,
    ``spilled_bytes`` lie in files of a volume with ``spill_free`` bytes left. ``received`` and ``sent`` are
    bytes a second of the machine's network cards, the loopback left out. ``gpu`` is "" where there is none.
    """

    host: str
    process: int
    cores: int
    busy_cores: float
    load: float
    memory: int
    used_memory: int
    total_memory: int
    records: int
    held_bytes: int
    spilled_bytes: int
    spill_free: int
    received: float
    sent: float
    gpu: str = ""
    gpu_load: float = 0.0
    gpu_memory: int = 0
    gpu_total_memory: int = 0


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What a worker holds to train on: ``spilled_bytes`` of its ``bytes_`` lie in files in ``folder``."""

    records: int
    bytes_: int
    spilled_bytes: int = 0
    folder: str = "/tmp"
    device: str = "cpu"


class Meter:
    """Reads what this process uses; one for each worker.

    Without psutil, as on a machine image that is older than this module, there is never a reading.
    """

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        self._last: _Counts | None = None
        self._gpu: Gpu | None = None
        self._psutil = _psutil()

    def read(self, holding: Callable[[], Holding]) -> Usage | None:
        """What has been used since the last reading; None while that is less than a second ago.

        ``holding`` is asked only for a reading.
        """
        if self._psutil is None:
            return None
        now, last = time.monotonic(), self._last
        if last and now - last.at < self._seconds:
            return None
        self._last = counts = _Counts.now(self._psutil, now)
        if last is None:
            return None
        held = holding()
        return counts.since(last, self._psutil, held, self._gpu_of(held.device))

    def _gpu_of(self, device: str) -> dict[str, Any]:
        if not device.startswith("cuda"):
            return {}
        self._gpu = self._gpu or Gpu()
        return self._gpu.reading


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """Counters of the process and of the machine, which only ever grow."""

    at: float
    process_seconds: float
    busy_seconds: float
    idle_seconds: float
    received: int
    sent: int

    @classmethod
    def now(cls, psutil: Any, at: float) -> _Counts:
        own, all_ = psutil.Process().cpu_times(), psutil.cpu_times()
        idle = all_.idle + getattr(all_, "iowait", 0.0)
        cards = psutil.net_io_counters(pernic=True, nowrap=False)
        wires = [card for name, card in cards.items() if name != "lo"]
        return cls(
            at=at,
            process_seconds=own.user + own.system,
            busy_seconds=sum(all_[:7]) - idle,  # user to softirq and steal: guests are counted among users
            idle_seconds=idle,
            received=sum(card.bytes_recv for card in wires),
            sent=sum(card.bytes_sent for card in wires),
        )

    def since(self, last: _Counts, psutil: Any, holding: Holding, gpu: dict[str, Any]) -> Usage:
        seconds = self.at - last.at
        busy, idle = self.busy_seconds - last.busy_seconds, self.idle_seconds - last.idle_seconds
        memory = psutil.virtual_memory()
        return Usage(
            host=socket.gethostname(),
            process=os.getpid(),
            cores=os.cpu_count() or 1,
            busy_cores=(self.process_seconds - last.process_seconds) / seconds,
            load=min(1.0, max(0.0, busy / max(busy + idle, 1e-9))),
            memory=psutil.Process().memory_info().rss,
            used_memory=memory.total - memory.available,
            total_memory=memory.total,
            records=holding.records,
            held_bytes=holding.bytes_,
            spilled_bytes=holding.spilled_bytes,
            spill_free=shutil.disk_usage(holding.folder).free,
            received=max(0, self.received - last.received) / seconds,
            sent=max(0, self.sent - last.sent) / seconds,
            **gpu,
        )


class Gpu:
    """The GPU of this process, asked every few seconds in the background for as long as somebody wants it."""

    def __init__(self) -> None:
        self._read: dict[str, Any] = {}
        self._asked = -_GPU_SECONDS
        self._thread: threading.Thread | None = None

    @property
    def reading(self) -> dict[str, Any]:
        """Fields of ``Usage``, as they were a few seconds ago; empty before the first answer."""
        busy = self._thread is not None and self._thread.is_alive()
        if not busy and time.monotonic() - self._asked >= _GPU_SECONDS:
            self._asked = time.monotonic()
            self._thread = threading.Thread(target=self._ask, name="sparknet-gpu", daemon=True)
            self._thread.start()
        return self._read

    def _ask(self) -> None:
        first = (os.environ.get("CUDA_VISIBLE_DEVICES") or "0").split(",")[0]
        query = "--query-gpu=name,utilization.gpu,memory.used,memory.total"
        words = ["nvidia-smi", query, "--format=csv,noheader,nounits", "-i", first]
        try:
            said = subprocess.run(
                words, capture_output=True, text=True, timeout=_SMI_DEADLINE_SECONDS, check=True
            )
            self._read = gpu_fields(said.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            self._read = {}


def gpu_fields(line: str) -> dict[str, Any]:
    """Fields of ``Usage`` by nvidia-smi's answer, percent and MiB. Raises ValueError for another.

    >>> gpu_fields("NVIDIA L4, 87, 4096, 23034")["gpu_load"]
    0.87
    """
    name, load, used, total = (word.strip() for word in line.strip().split("\n")[0].rsplit(",", 3))
    return {
        "gpu": name,
        "gpu_load": float(load) / 100,
        "gpu_memory": int(used) << 20,
        "gpu_total_memory": int(total) << 20,
    }


def _psutil() -> Any:
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    return psutil
