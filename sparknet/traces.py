"""What a worker's time is spent on, operator by operator: a trace of a few of its rounds by torch's profiler.

A trace is Chrome's JSON, compressed: open it in https://ui.perfetto.dev or chrome://tracing. A worker's first
round is left out: it warms up.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function


class Tracer:
    """Traces the ``rounds`` rounds after the first; ``trace`` is the result, once they are over."""

    def __init__(self, rounds: int) -> None:
        self._rounds, self._number = rounds, 0
        self._profiler: profile | None = None
        self.trace: bytes | None = None

    @contextmanager
    def round(self) -> Iterator[None]:
        """Around all that a worker does in a round."""
        if self._rounds and self._number == 1:
            self._profiler = profile(activities=_activities())
            self._profiler.start()
        try:
            if self._profiler:
                with record_function(f"round {self._number} of the trace"):
                    yield
            else:
                yield
        finally:
            if self._profiler and self._number == self._rounds:
                self.finish()
            self._number += 1

    def finish(self) -> None:
        """Write down what there is, as after the last round; without any round, nothing."""
        if self._profiler is None:
            return
        self._profiler.stop()
        with tempfile.TemporaryDirectory(prefix="sparknet-trace-") as folder:
            file = Path(folder) / "trace.json.gz"
            self._profiler.export_chrome_trace(str(file))
            self.trace = file.read_bytes()
        self._profiler = None


def _activities() -> list[ProfilerActivity]:
    gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    return [ProfilerActivity.CPU, *gpu]
