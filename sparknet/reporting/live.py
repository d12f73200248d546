"""The live page, as the driver knows it: what it is told goes to a process that serves it (``server.py``).

    page = LivePage(Run(...), Address.of("/data/run"), tell=log.info)
    page.take(record, workers)        a few microseconds: a thread passes it on
    page.close()                      the readers are told that the run is over, and the process ends

Whatever becomes of that process, training goes on.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from sparknet.reporting.address import Address, publish
from sparknet.reporting.metrics import Record, line_of
from sparknet.reporting.roster import WorkerRow, values_of
from sparknet.reporting.run import Run

# Messages that wait at most: past that, the process takes nothing, and is given up.
_WAITING = 100_000
# How often the workers' rows are sent, and how long the process may take to end.
_WORKERS_SECONDS = 1.0
_END_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Page:
    """What ``Trainer(report=)`` takes: the ``port`` of this machine at which the page is while the run
    trains, 0 for any free one, and the ``file`` it is left in, besides report.html in the output folder."""

    port: int = 0
    file: Path | None = None

    @classmethod
    def of(cls, asked: Page | bool | str | Path) -> Page | None:
        """What ``asked`` stands for: True for a page, False for none, a path for one that is left there."""
        if isinstance(asked, str | Path):
            return cls(file=Path(asked))
        return (cls() if asked else None) if isinstance(asked, bool) else asked


class LivePage:
    """Serves ``run``, and what ``take`` adds to it, at ``address``; what the user should know is told.

    ``metrics`` is where the run's metrics.jsonl is, for the next driver of it.
    """

    def __init__(
        self, run: Run, address: Address, *, tell: Callable[[str], None], metrics: Path | None = None
    ) -> None:
        self._address, self._tell, self._metrics = address, tell, metrics
        self._messages: queue.Queue[str | None] = queue.Queue(_WAITING)
        self._process: subprocess.Popen[str] | None = None
        self._is_over = False
        self._told_of_workers = 0.0
        self._say({"run": _values(run)})
        for record in run.records:
            self._put(_record(record))
        self._thread = threading.Thread(target=self._serve, name="sparknet-page", daemon=True)
        self._thread.start()

    def take(self, record: Record, workers: Callable[[], Sequence[WorkerRow]]) -> None:
        """A round; ``workers`` is asked about once a second."""
        self._put(_record(record))
        if time.monotonic() - self._told_of_workers >= _WORKERS_SECONDS:
            self._told_of_workers = time.monotonic()
            self._say({"workers": values_of(workers())})

    def close(self, workers: Sequence[WorkerRow] = (), failure: str = "") -> None:
        """The run is over, perhaps by a ``failure``; waits for the process, though not for long."""
        self._say({"workers": values_of(workers)})
        self._say({"over": {"failure": failure}})
        self._put(None)
        self._thread.join(_END_SECONDS)
        if self._thread.is_alive() and self._process:
            self._process.kill()
            self._thread.join(_END_SECONDS)

    def _say(self, message: Mapping[str, Any]) -> None:
        self._put(json.dumps(message) + "\n")

    def _put(self, line: str | None) -> None:
        if self._is_over:
            return
        try:
            self._messages.put_nowait(line)
        except queue.Full:
            self._is_over = True
            self._tell("the live page takes nothing any more: it is given up, and training goes on")

    def _serve(self) -> None:
        """Start the process and pass on what is said, until that is over or the process is."""
        with tempfile.TemporaryFile("w+") as errors:
            process = self._process = _started(errors)
            try:
                with process:
                    self._pass_on(process)
            except (OSError, ValueError):  # it has ended
                process.kill()
            if process.returncode:
                self._is_over = True
                errors.seek(0)
                last = (errors.read().strip().splitlines() or ["it was ended"])[-1]
                self._tell(f"there is no live page any more ({last}); training goes on")

    def _pass_on(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        wanted = {"port": self._address.port, "token": self._address.token}
        _write(process.stdin, json.dumps(wanted) + "\n")
        self._announce(int(process.stdout.readline()))
        while (line := self._messages.get()) is not None:
            _write(process.stdin, line)

    def _announce(self, port: int) -> None:
        """Say where the page is: to whoever reads the file for it, else to the user."""
        self._address.remember(port, self._metrics)
        if self._address.is_fixed and port != self._address.port:
            self._tell(f"port {self._address.port} of this machine is taken")
        if not publish(self._address.url(port)):
            self._tell(f"live page: {self._address.url(port)}")


def _started(errors: IO[str]) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, sys.path))  # whatever spark-submit has added to it
    return subprocess.Popen(
        [sys.executable, "-m", "sparknet.reporting.server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def _write(stream: IO[str], line: str) -> None:
    stream.write(line)
    stream.flush()


def _record(record: Record) -> str:
    return f'{{"record": {line_of(record).strip()}}}\n'


def _values(run: Run) -> dict[str, Any]:
    return {
        "title": run.title,
        "settings": dict(run.settings),
        "versions": dict(run.versions),
        "cluster": asdict(run.cluster) if run.cluster else None,
    }
