"""Terminal: a pty, and what a person would see on it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping

TOKEN = re.compile(r"\x1b\[(\d*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n])")


class Terminal:
    """Runs Python ``code`` with a terminal of that size for all of its streams."""

    def __init__(self, code: str, *, columns: int, lines: int, env: Mapping[str, str] | None = None) -> None:
        self.columns = columns
        self.said = ""
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            _set_size(0, columns, lines)
            whole = {**os.environ, "TERM": "xterm", **(env or {})}
            for name in ("COLUMNS", "LINES"):  # which would be believed in place of the terminal
                whole.pop(name, None)
            os.execve(sys.executable, [sys.executable, "-c", code], whole)
        mode = termios.tcgetattr(self.end)
        mode[3] &= ~termios.ECHO  # what is typed would stand between what is drawn
        termios.tcsetattr(self.end, termios.TCSANOW, mode)

    def resize(self, columns: int, lines: int) -> None:
        _set_size(self.end, columns, lines)

    def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Read on until ``condition`` holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.said
            if not self.read():
                assert condition(), self.said
                return

    def close(self) -> int:
        """Read to the end; the status."""
        while self.read():
            pass
        os.close(self.end)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def press_enter(self) -> None:
        os.write(self.end, b"\n")

    @property
    def display(self) -> list[str]:
        """Every line so far, as it looks now, without those that are empty at the end."""
        return seen(self.said, self.columns)

    def read(self) -> bool:
        ready, _, _ = select.select([self.end], [], [], 1.0)
        if not ready:
            return True
        try:
            chunk = os.read(self.end, 65536)
        except OSError:  # what Linux says when the other side is gone
            return False
        self.said += chunk.decode()
        return bool(chunk)


def seen(said: str, columns: int) -> list[str]:
    """The lines of ``said`` on an endless terminal that is so wide; a wrapped one is several."""
    grid, row, column = [[""] * 0], 0, 0
    for match in TOKEN.finditer(said):
        number, command, is_return, is_newline, character = match.groups()
        if is_return:
            column = 0
        elif is_newline:
            row += 1
        elif command == "A":
            row = max(0, row - int(number or 1))
        elif command == "J":
            grid[row] = grid[row][:column]
            del grid[row + 1 :]
        elif character:
            if column == columns:
                row, column = row + 1, 0
            while len(grid) <= row:
                grid.append([])
            line = grid[row]
            line += [" "] * (column + 1 - len(line))
            line[column] = character
            column += 1
        while len(grid) <= row:
            grid.append([])
    lines = ["".join(line).rstrip() for line in grid]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _set_size(terminal: int, columns: int, lines: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
