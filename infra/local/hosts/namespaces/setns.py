"""Doing something inside another network namespace, without becoming another process.

A namespace belongs to a thread: a thread of its own goes there and ends. What it made there (a socket, say)
stays there and can be used from anywhere.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def in_network(network: str, work: Callable[[], T]) -> T:
    """What ``work`` returns, run in the namespace whose file ``network`` is. Raises OSError."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_enter_and_work, network, work).result()


def _enter_and_work(network: str, work: Callable[[], T]) -> T:
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(namespace, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot enter the network {network}: {os.strerror(number)}")
        return work()
    finally:
        os.close(namespace)
