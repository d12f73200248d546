"""A simulated S3 that fails when it is told to, as a server does: by its answers, or by none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

ANSWERS = {
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "403": (403, "AccessDenied", "Access Denied"),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
}


class FlakyS3:
    """``fault`` is one of ``ANSWERS``, "silence", or "" for none; ``only`` says which requests it is for.

    ``requests`` counts all of them.
    """

    def __init__(self) -> None:
        self.fault, self.requests = "", 0
        self.only: Callable[[dict[str, Any]], bool] = lambda _: True
        self.backend = DomainDispatcherApplication(create_backend_app)
        self.silence_ends = threading.Event()
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.silence_ends.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.requests += 1
        fault = self.fault if self.only(environ) else ""
        if fault == "silence":
            self.silence_ends.wait(60)
        elif fault:
            status, code, message = ANSWERS[fault]
            text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
            return Response(text, status=status, content_type="application/xml")(environ, start)
        answer: Iterable[bytes] = self.backend(environ, start)
        return answer


class Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


@contextmanager
def flaky_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyS3]:
    """With a bucket named runs, found by AWS's own environment variables."""
    server = FlakyS3()
    for name, value in (
        ("AWS_ENDPOINT_URL", server.url),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "key"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="runs")
    try:
        yield server
    finally:
        for entry in client.list_objects_v2(Bucket="runs").get("Contents", []) if not server.fault else []:
            client.delete_object(Bucket="runs", Key=entry["Key"])
        server.close()
