"""Doing something inside another process's network namespace, without becoming another process.

A namespace belongs to a thread: a thread of its own goes there and ends. What it made there (a socket, say)
stays there and can be used from anywhere.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def in_network_of(pid: int, work: Callable[[], T]) -> T:
    """What ``work`` returns, run where process ``pid`` has its network. Raises OSError."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_enter_and_work, pid, work).result()


def _enter_and_work(pid: int, work: Callable[[], T]) -> T:
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(Path(f"/proc/{pid}/ns/net"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(namespace, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot enter the network of process {pid}: {os.strerror(number)}")
        return work()
    finally:
        os.close(namespace)
