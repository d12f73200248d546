"""The least that a star's driver can do: sockets, copies and a sum; no protocol, no check, no mean.

Each member is sent a vector and sends it back, which is added to a sum as soon as it is there. What a driver
takes beyond that, for authentication, outliers, bookkeeping and the order of a mean, is its own.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections import deque
from statistics import median

import numpy as np

from sparknet.weights import Vector

_WORTH_WAKING = 1 << 18


class BareConnection:
    """One member's: ``sent`` bytes of the vector have gone, ``received`` have come back into ``buffer``."""

    def __init__(self, connection: socket.socket, size: int) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket, self.vector = connection, np.empty(size, np.float32)
        self.buffer = self.vector.data.cast("B")
        self.sent = self.received = 0

    def begin(self) -> None:
        self.sent = self.received = 0

    def go_on(self, weights: memoryview) -> bool:
        """Whether all has come back."""
        try:
            if self.sent < len(weights):
                self.sent += self.socket.send(weights[self.sent :])
            else:
                self.received += self.socket.recv_into(self.buffer[self.received :])
        except BlockingIOError:
            return False
        left = len(weights) - self.received
        if self.sent == len(weights) and left:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, min(left, _WORTH_WAKING))
        return not left


def measured(members: int, rounds: int, size: int, processes: int) -> tuple[float, float]:
    """Milliseconds of a round with vectors of ``size``, and the driver's processor milliseconds for a member
    in it."""
    with socket.create_server(("127.0.0.1", 0), backlog=members) as server:
        pids = [
            _held(server.getsockname(), len(numbers), size)
            for numbers in np.array_split(range(members), processes)
            if len(numbers)
        ]
        connections = [BareConnection(server.accept()[0], size) for _ in range(members)]
    weights, took, cpu = np.zeros(size, np.float32), list[float](), list[float]()
    try:
        for number in range(rounds + 2):
            began, used = time.perf_counter(), time.process_time()
            _round(connections, weights)
            if number >= 2:
                took.append(time.perf_counter() - began)
                cpu.append((time.process_time() - used) / members)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for connection in connections:
            connection.socket.close()
    return 1e3 * median(took), 1e3 * median(cpu)


def _round(connections: list[BareConnection], weights: Vector) -> None:
    """Another transfer begins when none of those under way can go on: the fewest bytes are held at a time."""
    total, data = np.zeros(weights.size), weights.data.cast("B")
    todo, under_way = deque(connections), dict[int, BareConnection]()
    with select.epoll() as epoll:
        while todo or under_way:
            events = epoll.poll(0 if todo else None)
            if not events:
                connection = todo.popleft()
                connection.begin()
                under_way[connection.socket.fileno()] = connection
                epoll.register(connection.socket.fileno(), select.EPOLLOUT)
            for number, _ in events:
                connection = under_way[number]
                if connection.go_on(data):
                    np.add(total, connection.vector, out=total)
                    epoll.unregister(number)
                    del under_way[number]
                elif connection.sent == len(data):
                    epoll.modify(number, select.EPOLLIN)


def _held(address: tuple[str, int], members: int, size: int) -> int:
    """A process with so many members; its id."""
    pid = os.fork()
    if pid == 0:
        threads = [threading.Thread(target=_echo, args=(address, size), daemon=True) for _ in range(members)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os._exit(0)
    return pid


def _echo(address: tuple[str, int], size: int) -> None:
    with socket.create_connection(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = memoryview(bytearray(4 * size))
        while connection.recv_into(buffer, len(buffer), socket.MSG_WAITALL) == len(buffer):
            connection.sendall(buffer)
