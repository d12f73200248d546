"""Output: what a remote command writes, kept whole and passed on in lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Lines:
    """Bytes as they come, kept whole, and passed on in lines."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self._kept = bytearray()
        self._told = 0  # bytes passed on

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace")

    def add(self, data: bytes) -> None:
        self._kept += data
        cut = self._kept.rfind(b"\n") + 1
        if self._on_line and cut > self._told:
            for line in self._kept[self._told : cut].splitlines():
                self._on_line(line.decode(errors="replace"))
        self._told = max(cut, self._told)

    def end(self) -> None:
        """Pass on a last line that came without its newline."""
        if self._on_line and len(self._kept) > self._told:
            self._on_line(self._kept[self._told :].decode(errors="replace"))
        self._told = len(self._kept)


def drain(channel: Any, out: Lines, error: Lines) -> bool:
    """Take what there is; True when there will be no more."""
    is_over: bool = channel.exit_status_ready()  # asked first: what came before it is then taken below
    while channel.recv_ready():
        out.add(channel.recv(65536))
    while channel.recv_stderr_ready():
        error.add(channel.recv_stderr(65536))
    return is_over and not channel.recv_ready() and not channel.recv_stderr_ready()
