"""Feeder: gives a command its input from a thread of its own, while somebody else takes its output."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from infra.errors import HostUnreachable


class Feeder:
    """Gives the parts of ``source`` to ``send`` one after the other, then calls ``end``.

    ``send`` and ``end`` may raise OSError or EOFError when the other side is gone, which whoever takes the
    output sees as well; what ``source`` itself raises is kept for ``check``.
    """

    def __init__(
        self, source: Iterable[bytes], send: Callable[[bytes], object], end: Callable[[], object]
    ) -> None:
        self._source, self._send, self._end = source, send, end
        self._failure: BaseException | None = None
        self._moved_at = time.monotonic()
        self._is_wanted = True
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self._thread.start()

    def moved(self) -> None:
        """Something came from the other side."""
        self._moved_at = time.monotonic()

    def check(self, host: str, silence_seconds: float) -> None:
        """Raises what ``source`` raised, and HostUnreachable after a silence in both directions."""
        if self._failure is not None:
            raise self._failure
        if time.monotonic() - self._moved_at > silence_seconds:
            raise HostUnreachable(host, f"said nothing for {silence_seconds:g} s while files were copied")

    def stop(self) -> None:
        """No further part is sent."""
        self._is_wanted = False

    def _run(self) -> None:
        try:
            for part in self._source:
                if not self._is_wanted:
                    return
                self._give(self._send, part)
                self.moved()
        except _Gone:
            return
        except BaseException as failure:  # noqa: BLE001 - raised again by check, in the thread that waits
            self._failure = failure
        try:
            self._give(self._end)
        except _Gone:
            return

    @staticmethod
    def _give(to: Callable[..., object], *what: bytes) -> None:
        try:
            to(*what)
        except (OSError, EOFError):
            raise _Gone from None


class _Gone(Exception):  # noqa: N818
    """The other side takes nothing more."""
