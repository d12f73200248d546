"""A gradient that is being computed, from its end to its beginning, and those who wait for parts of it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

import torch

from sparknet.gradients import Gradient


class PartialGradient:
    """``parts`` are those in which ``gradient`` travels, the last first; they are known by their number.

    A part is brought to host memory by whoever asks for it first, once.
    """

    def __init__(self, gradient: Gradient, parts: Sequence[slice], device: torch.device) -> None:
        self._gradient, self._parts = gradient, parts
        self._lock, self._bringing = threading.Condition(), threading.Lock()
        self._from = sys.maxsize  # from which place on all is final
        self._event: torch.cuda.Event | None = None
        self._failed = False
        self._brought = 0
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.squared = 0.0

    def on_final(self, place: int) -> None:
        """All from ``place`` on is final."""
        with self._lock:
            self._from = min(self._from, place)
            if self._stream is not None:
                self._event = torch.cuda.current_stream(self._stream.device).record_event()
            self._lock.notify_all()

    def fail(self) -> None:
        """It will not be computed to its end."""
        with self._lock:
            self._failed = True
            self._lock.notify_all()

    def is_final(self, number: int) -> bool:
        start: int = self._parts[number].start
        return start >= self._from

    def wait_for(self, number: int) -> None:
        """Until this part, and those before it, are in host memory. Raises RuntimeError if they will not
        be."""
        with self._lock:
            self._lock.wait_for(lambda: self._failed or self.is_final(number))
            if not self.is_final(number):
                raise RuntimeError("the gradient was not computed to its end")
            event = self._event
        if event is not None:
            event.synchronize()
        with self._bringing, torch.cuda.stream(self._stream):
            while self._brought <= number:
                self.squared += self._gradient.bring(self._parts[self._brought])
                self._brought += 1

    def complete(self) -> None:
        """Wait for all of it."""
        self.wait_for(len(self._parts) - 1)
