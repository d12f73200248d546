"""A simulated S3, and how to put folders into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "pictures"


@contextmanager
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a simulated S3, which AWS's environment variables lead everybody to."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name, value in (("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "key")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield boto3.client("s3")
    server.stop()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Copies a folder into a bucket of a simulated S3, and returns its URL there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with simulated(monkeypatch) as client:
        client.create_bucket(Bucket=BUCKET)
        boto3.resource("s3").Bucket(BUCKET).objects.all().delete()  # moto keeps one account a process

        def put(folder: Path) -> str:
            for file in folder.rglob("*"):
                if file.is_file():
                    client.upload_file(str(file), BUCKET, f"{folder.name}/{file.relative_to(folder)}")
            return f"s3://{BUCKET}/{folder.name}"

        yield put
