"""A stop watch, as ``caffe.Timer``."""

from __future__ import annotations

import time

import torch

from sparknet.caffe.pycaffe import mode


class Timer:
    """Measures from ``start()`` to ``stop()``, all work of the GPU in between included."""

    def __init__(self) -> None:
        self._began = self._ended = 0.0
        self._is_running = False

    def start(self) -> None:
        """Begin to measure; without effect while it measures."""
        if not self._is_running:
            self._began, self._is_running = _now(), True

    def stop(self) -> None:
        """End the measurement; without effect before ``start``."""
        if self._is_running:
            self._ended, self._is_running = _now(), False

    @property
    def ms(self) -> float:
        """Milliseconds between the two, 0 before any; stops a watch that is running."""
        self.stop()
        return 1e3 * (self._ended - self._began)


def _now() -> float:
    if mode.device().type == "cuda":
        torch.cuda.synchronize(mode.device())
    return time.perf_counter()
