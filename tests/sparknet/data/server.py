"""A file server on the loopback address that misbehaves to order."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """``content`` is what it serves; the rest is what goes wrong, or does not.

    It hangs up after ``break_after`` bytes in each of the first ``breaks`` answers, answers with each status
    of ``refuse`` once, waits ``stall_seconds`` after the headers, and understands Range if ``ranges``.
    """

    content: bytes
    break_after: int | None = None
    breaks: int = 10**9
    refuse: list[int] = field(default_factory=list)
    stall_seconds: float = 0.0
    ranges: bool = True
    asked: list[str | None] = field(default_factory=list)


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """The address of ``data.bin`` on a server that behaves so."""
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            behaviour.asked.append(asked)
            if behaviour.refuse:
                self.send_error(behaviour.refuse.pop(0))
                return
            self._send(_start(asked) if behaviour.ranges else 0, resumed=bool(asked) and behaviour.ranges)

        def _send(self, start: int, *, resumed: bool) -> None:
            if start >= len(behaviour.content) and resumed:
                self.send_error(416)
                return
            body = behaviour.content[start:]
            self.send_response(206 if resumed else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            released.wait(behaviour.stall_seconds)
            if behaviour.break_after is not None and len(behaviour.asked) <= behaviour.breaks:
                body = body[: behaviour.break_after]
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the output of the tests clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/files/data.bin"
    finally:
        released.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def _start(asked: str | None) -> int:
    found = re.fullmatch(r"bytes=(\d+)-", asked or "")
    return int(found[1]) if found else 0


def wait_until(condition: object, seconds: float) -> None:
    """Poll until ``condition()`` holds; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.01)
