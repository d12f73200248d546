"""The server of a live page: a process of its own beside the driver, which tells it of every round.

    driver ── a line of JSON for each message, on stdin ──> this process ── HTTP, 127.0.0.1 ──> browsers

Drawing in the driver would hold up its rounds, which take a millisecond. When the driver ends, however it
does, its end of stdin closes, and with it this process ends.

    GET /TOKEN/           the page
    GET /TOKEN/events     its updates, as server-sent events (the HTML standard, section 9.2)
    GET /TOKEN/about      which run this is, as JSON

Anybody on this machine can connect, and any web page in a browser of this machine can try to (by a name that
it lets lead to 127.0.0.1). So the address holds a token that cannot be guessed, and requests must be for this
machine by name. Nothing can be changed by any request.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO

from sparknet.reporting.board import Board
from sparknet.reporting.page import POLICY, read

LOOPBACK = "127.0.0.1"
# What a browser may call this machine; through a tunnel the port is another one.
_NAMES = ("127.0.0.1", "localhost", "[::1]")

_FILES = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

# Readers at once, at most: each is a thread.
_READERS = 64
# After so long without news a reader is sent a comment: that shows whether it is still there.
_PING_SECONDS = 10.0
# A reader that takes nothing for so long is sent away.
_SEND_SECONDS = 30.0
# After which a browser that has lost the server tries again.
_RETRY_MILLISECONDS = 1000
# How long readers have at the end to fetch the last of it.
_LAST_SECONDS = 8.0
_NICE = 5


class Server(ThreadingHTTPServer):
    """Serves ``board`` to whoever knows ``token``, at ``port`` of 127.0.0.1, or at any if that is taken."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, board: Board, token: str, port: int = 0) -> None:
        self.board, self.token = board, token
        self.readers = 0
        self._counting = threading.Lock()
        try:
            super().__init__((LOOPBACK, port), Handler)
        except OSError:
            if not port:
                raise
            super().__init__((LOOPBACK, 0), Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @contextlib.contextmanager
    def reader(self) -> Iterator[bool]:
        """Count one in; False if there are as many as there may be."""
        with self._counting:
            admitted = self.readers < _READERS
            self.readers += 1
        try:
            yield admitted
        finally:
            with self._counting:
                self.readers -= 1

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that went away is no error."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    timeout = _SEND_SECONDS
    server_version, sys_version = "sparknet", ""

    def do_GET(self) -> None:
        name = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if name not in _NAMES:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "This page is for browsers of this machine.")
            return
        token, _, path = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such page: is the address complete?")
            return
        match path:
            case "":
                self._send(self.server.board.page(), "text/html")
            case "events":
                self._stream()
            case "about":
                self._send(json.dumps(self._about()), "application/json")
            case _ if path in _FILES:
                self._send(read(path), _FILES[path])
            case _:
                self._refuse(HTTPStatus.NOT_FOUND, "There is no such file.")

    def log_message(self, format: str, *args: object) -> None:
        """Requests are nobody's business."""

    def _about(self) -> dict[str, object]:
        run = self.server.board.run
        done, rounds = (run.last.round, run.last.rounds) if run.records else (0, 0)
        return {"title": run.title, "round": done, "rounds": rounds, "is_over": run.is_over}

    def _stream(self) -> None:
        """Send what changes until the run ends or the reader goes."""
        with self.server.reader() as admitted:
            if not admitted:
                self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"{_READERS} readers are here already.")
                return
            with contextlib.suppress(OSError):  # it has gone, or takes nothing
                self._begin(HTTPStatus.OK, "text/event-stream")
                self._write(f"retry: {_RETRY_MILLISECONDS}\n\n")
                self._follow(_number(self.headers.get("Last-Event-ID", ""), self.server.board.epoch))

    def _follow(self, number: int) -> None:
        board = self.server.board
        while True:
            update = board.since(number, _PING_SECONDS)
            if update is None:
                self._write(":\n\n")
                continue
            number = update.number
            if update.fragments:
                self._write_event("fragments", f"{board.epoch}-{number}", json.dumps(update.fragments))
            if update.is_over:
                self._write_event("over", f"{board.epoch}-{number}", "{}")
                return

    def _write_event(self, kind: str, identity: str, data: str) -> None:
        self._write(f"event: {kind}\nid: {identity}\ndata: {data}\n\n")

    def _send(self, text: str, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        data = text.encode()
        self._begin(status, kind, {"Content-Length": str(len(data))})
        self.wfile.write(data)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(f"{why}\n", "text/plain", status)

    def _begin(self, status: HTTPStatus, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": f"{kind}; charset=utf-8", **_HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def _write(self, text: str) -> None:
        self.wfile.write(text.encode())
        self.wfile.flush()


def _number(identity: str, epoch: str) -> int:
    """Of the change that a reader has seen last; 0 if another server told it of that."""
    before, _, number = identity.partition("-")
    return int(number) if before == epoch and number.isdecimal() else 0


def serve(said: IO[str], answers: IO[str]) -> None:
    """Listen as the first line of ``said`` asks, say at which port, and show the rest until it ends."""
    wanted = json.loads(said.readline())
    board = Board()
    server = Server(board, wanted["token"], wanted["port"])
    for work in (server.serve_forever, board.draw_forever):
        threading.Thread(target=work, daemon=True).start()
    answers.write(f"{server.port}\n")
    answers.flush()
    for line in said:
        board.take(json.loads(line))
    board.end()
    deadline = time.monotonic() + _LAST_SECONDS
    while server.readers and time.monotonic() < deadline:
        time.sleep(0.02)


def main() -> None:
    """The process: it ends with the driver, not by the signals that are meant for that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    with contextlib.suppress(ValueError):  # a line cut short: the driver was killed
        serve(sys.stdin, sys.stdout)
    os._exit(0)  # whatever readers do


if __name__ == "__main__":
    main()
