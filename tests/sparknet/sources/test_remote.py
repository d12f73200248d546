"""Sources in S3 (a simulated one) and behind http give what they give on a disk, or one sentence."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server
from threading import Thread
from typing import Any

import boto3
import pytest
import requests

from sparknet.data import Examples
from sparknet.errors import DataError, UsageError
from sparknet.sources import open_source
from tests.sparknet.sources.s3 import BUCKET
from tests.sparknet.sources.test_sources import read_part, records, same
from tests.sparknet.sources.writing import WRITERS, drawn, put_hdf5, put_parquet, put_tars

SECONDS = 60.0
"""Nothing that fails may take longer."""

Put = Callable[[Path], str]


@pytest.mark.parametrize("kind", list(WRITERS))
def test_a_source_in_s3_gives_the_records_of_one_on_a_disk(kind: str, s3: Put, tmp_path: Path) -> None:
    examples = drawn(1000 if "Parquet" in kind else 60)
    at = WRITERS[kind](tmp_path / "data", examples)
    url = s3(tmp_path / "data") + str(at).removeprefix(str(tmp_path / "data"))
    shutil.rmtree(tmp_path / "data")
    source = open_source(url)
    assert url.removesuffix("/list.txt") in source.name
    assert same(records(source, 3), examples)


def test_a_database_that_has_been_written_anew_in_s3_is_not_read_from_its_old_copy(
    s3: Put, tmp_path: Path
) -> None:
    before = drawn(20)
    after = Examples(255 - before.images, before.labels)
    assert same(records(open_source(s3(WRITERS["LMDB, raw"](tmp_path / "db", before)))), before)
    shutil.rmtree(tmp_path / "db")
    time.sleep(1.1)  # S3 tells whole seconds
    assert same(records(open_source(s3(WRITERS["LMDB, raw"](tmp_path / "db", after)))), after)


def test_a_bucket_that_is_not_there_is_one_sentence(s3: Put) -> None:
    with pytest.raises(
        DataError, match=r"^s3://nobody/x cannot be read: there is no such bucket, or no longer$"
    ):
        open_source("s3://nobody/x")
    with pytest.raises(DataError, match=rf"^s3://{BUCKET}/nothing does not exist$"):
        open_source(f"s3://{BUCKET}/nothing")


def test_a_bucket_that_vanishes_while_it_is_read_is_one_sentence(s3: Put, tmp_path: Path) -> None:
    url = s3(put_tars(tmp_path / "tars", drawn(40)))
    part = open_source(url).parts(1)[0]
    bucket = boto3.resource("s3").Bucket(BUCKET)
    bucket.objects.all().delete()
    bucket.delete()
    with pytest.raises(
        DataError, match=rf"^{url}/shard-000000\.tar (does not exist|cannot be read: .*no longer)$"
    ):
        read_part(part)


def test_a_shard_in_s3_that_is_cut_short_is_named(s3: Put, tmp_path: Path) -> None:
    put_tars(tmp_path / "tars", drawn(40))
    shard = tmp_path / "tars" / "shard-000003.tar"
    shard.write_bytes(shard.read_bytes()[:7000])
    url = s3(tmp_path / "tars")
    with pytest.raises(DataError, match=rf"^{url}/shard-000003\.tar is cut short, or no tar archive: "):
        records(open_source(url))


def test_wrong_credentials_are_one_sentence(s3: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = s3(put_tars(tmp_path / "tars", drawn(4), shards=1))
    requests.post(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth", data=b"0", timeout=10)
    try:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        begun = time.monotonic()
        with pytest.raises(
            DataError, match=rf"^{url} cannot be read: S3 refuses the credentials: check AWS_ACC"
        ):
            open_source(url)
        assert time.monotonic() - begun < SECONDS
    finally:
        requests.post(f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset-auth", data=b"inf", timeout=10)


def test_an_s3_that_nobody_serves_is_one_sentence_in_time(s3: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    begun = time.monotonic()
    with pytest.raises(
        DataError, match=r"^s3://pictures/x cannot be read: S3 does not answer: check the network"
    ):
        open_source("s3://pictures/x")
    assert time.monotonic() - begun < SECONDS


def test_an_s3_that_takes_calls_and_says_nothing_is_one_sentence_in_time(
    s3: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    with create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.raises(DataError, match=r"^s3://pictures/x cannot be read: S3 does not answer"):
            open_source("s3://pictures/x")
        assert time.monotonic() - begun < SECONDS


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server with the files of a folder."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Keep the output of the tests clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def test_single_files_are_read_over_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    examples = drawn(800)
    put_tars(tmp_path / "web" / "tars", examples)
    put_parquet(tmp_path / "web" / "parquet", examples, encoded=True)
    put_hdf5(tmp_path / "web" / "hdf5", examples)
    with served(tmp_path / "web") as url:
        assert same(records(open_source(f"{url}/tars/shard-{{000000..000003}}.tar"), 3), examples)
        assert same(records(open_source(f"{url}/parquet/part-0.parquet"), 2), examples[:700])
        assert same(records(open_source(f"{url}/hdf5/a.h5"), 2), examples[:400])
        with pytest.raises(
            DataError, match=rf"^{re.escape(url)}/tars/ is a folder, and http has nothing that"
        ):
            open_source(f"{url}/tars/")
        with pytest.raises(DataError, match=rf"^{re.escape(url)}/nothing\.tar does not exist$"):
            open_source(f"{url}/nothing.tar")
    with pytest.raises(
        DataError, match=rf"^{re.escape(url)}/tars/shard-000000\.tar cannot be read: Cannot connect to host"
    ):
        open_source(f"{url}/tars/shard-000000.tar")


def test_hdfs_without_hadoop_says_what_it_needs() -> None:
    with pytest.raises(DataError, match=r"^hdfs://namenode/x: hdfs:// needs Hadoop's native library"):
        open_source("hdfs://namenode/x")


def test_a_place_that_nothing_here_can_open_is_refused() -> None:
    with pytest.raises((UsageError, DataError), match="nosuch://x cannot be used: Protocol not known"):
        open_source("nosuch://x")
