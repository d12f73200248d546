"""Metadata: 169.254.169.254 of every host, on their router; the caller's address says which one asks.

What it answers is ``infra.local.models.metadata``'s. An answer to PUT travels no further than the
instance's hop limit.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from http.client import responses
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server

from infra.local.hosts.namespaces.cloud import Cloud
from infra.local.hosts.namespaces.network import Network

PORT = 80
FORWARDED = "HTTP_X_FORWARDED_FOR"


class MetadataService:
    """Serves from ``start`` to ``end``."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._server: Any = None

    def start(self, network: Network) -> None:
        """Raises OSError."""
        metadata = self._cloud.metadata

        class Handler(WSGIRequestHandler):
            def date_time_string(self, _timestamp: float | None = None) -> str:
                """The simulated moment, which the timers of hosts go by."""
                return metadata.date

            def log(self, *_: object, **__: object) -> None:
                """Nobody reads it."""

        with network.listen(PORT) as listener:
            address, port = listener.getsockname()
            self._server = make_server(
                address, port, self._answer, threaded=True, request_handler=Handler, fd=listener.fileno()
            )
        threading.Thread(target=self._server.serve_forever, name="metadata", daemon=True).start()

    def end(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, text = self._look_up(environ)
        body = text.encode()
        headers = [
            ("Content-Type", "text/plain"),
            ("Content-Length", str(len(body))),
            ("Server", "EC2ws"),
        ]
        start_response(f"{status} {responses.get(status, 'Unknown')}", headers)
        return [body]

    def _look_up(self, environ: dict[str, Any]) -> tuple[int, str]:
        with self._cloud.lock:
            instance = self._asking(environ.get("REMOTE_ADDR", ""))
            if instance is None:
                return 404, ""
            if environ["REQUEST_METHOD"] == "PUT":
                if FORWARDED in environ:
                    return 403, ""
                hops = int(instance.metadata_options.http_put_response_hop_limit or 1)
                connection: socket.socket = environ["werkzeug.socket"]
                connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
            path = environ.get("PATH_INFO", "").lstrip("/")
            return self._cloud.metadata.answer(f"{instance.id}/{path}", environ)

    def _asking(self, address: str) -> Any:
        for instance in self._cloud.instances:
            if instance.private_ip == address and instance.state != "terminated":
                return instance
        return None
