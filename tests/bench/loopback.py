"""The floor of an exchange: the same bytes there and back over loopback TCP, with nothing else.

One process at each end of each connection, which reads all and sends all back. The end of this process has a
thread for each.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time

_CHUNK = 1 << 22
# What the other end runs: no imports but the one, so that it is there at once.
_ECHO = """
import socket, sys
port, count, rounds = map(int, sys.argv[1:])
end = socket.create_connection(("127.0.0.1", port))
end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
data = memoryview(bytearray(count))
for _ in range(rounds):
    done = 0
    while done < count:
        done += end.recv_into(data[done : done + (1 << 22)])
    end.sendall(data)
"""


def floor(count: int, connections: int, rounds: int) -> list[float]:
    """Seconds of each round in which ``count`` bytes go to each of the other ends and come back."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", _ECHO, str(server.getsockname()[1]), str(count), str(rounds)]
        others = [subprocess.Popen(command) for _ in range(connections)]
        ends = [server.accept()[0] for _ in range(connections)]
    for end in ends:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times = [_round(ends, count) for _ in range(rounds)]
    for end in ends:
        end.close()
    for other in others:
        other.wait()
    return times[1:] if rounds > 1 else times  # pages are touched in the first


def _round(ends: list[socket.socket], count: int) -> float:
    data = [_buffer(number, count) for number in range(len(ends))]
    started = time.perf_counter()
    threads = [threading.Thread(target=_trip, args=trip) for trip in zip(ends, data, strict=True)][1:]
    for thread in threads:
        thread.start()
    _trip(ends[0], data[0])
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def _trip(end: socket.socket, data: memoryview) -> None:
    end.sendall(data)
    done = 0
    while done < len(data):
        done += end.recv_into(data[done : done + _CHUNK])


_ROOMS: dict[int, bytearray] = {}


def _buffer(number: int, count: int) -> memoryview:
    """Memory that is used again: its pages must not count."""
    if len(_ROOMS.get(number, b"")) != count:
        _ROOMS[number] = bytearray(count)
    return memoryview(_ROOMS[number])
