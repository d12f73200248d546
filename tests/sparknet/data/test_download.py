"""Downloading, from a server on this machine that breaks off, stalls, refuses and lies."""

from __future__ import annotations

import fcntl
import hashlib
import io
import socket
import tarfile
import threading
import time
from pathlib import Path

import pytest

from sparknet.data import cifar10, download, synthetic
from sparknet.data.download import Remote, RetryPolicy
from sparknet.errors import DataError
from tests.sparknet.data.server import Behaviour, serving, wait_until

CONTENT = bytes(range(256)) * 4096  # 1 MiB
HASTY = RetryPolicy(attempts=3, silence_seconds=0.3, deadline_seconds=5, pause_seconds=0.01)


def remote(url: str, content: bytes = CONTENT) -> Remote:
    return Remote(url=url, md5=hashlib.md5(content).hexdigest(), size=len(content))


def test_a_file_arrives_whole_and_progress_is_reported(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    with serving(Behaviour(CONTENT)) as url:
        file = download.fetch(remote(url), tmp_path, progress=lambda *a: calls.append(a), retry=HASTY)
    assert file == tmp_path / "data.bin"
    assert file.read_bytes() == CONTENT
    assert calls[-1] == ("data.bin", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


def test_a_connection_that_breaks_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    server = Behaviour(CONTENT, break_after=300_000)
    with serving(server) as url:
        assert download.fetch(remote(url), tmp_path, retry=HASTY).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_what_a_killed_process_left_is_continued(tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    server = Behaviour(CONTENT)
    with serving(server) as url:
        assert download.fetch(remote(url), tmp_path, retry=HASTY).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


def test_a_server_that_cannot_resume_is_asked_for_all_of_it_again(tmp_path: Path) -> None:
    server = Behaviour(CONTENT, break_after=300_000, breaks=1, ranges=False)
    with serving(server) as url:
        assert download.fetch(remote(url), tmp_path, retry=HASTY).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_file_that_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(CONTENT)
    server = Behaviour(CONTENT)
    with serving(server) as url:
        download.fetch(remote(url), tmp_path, retry=HASTY)
    assert server.asked == []


def test_a_damaged_file_under_the_final_name_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"damaged")
    with serving(Behaviour(CONTENT)) as url:
        assert download.fetch(remote(url), tmp_path, retry=HASTY).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing_behind_that_could_be_taken_for_the_file(tmp_path: Path) -> None:
    wrong = bytes(len(CONTENT))
    with serving(Behaviour(wrong)) as url, pytest.raises(DataError, match="is not what was published"):
        download.fetch(remote(url), tmp_path, retry=HASTY)
    assert not (tmp_path / "data.bin").exists()
    assert not (tmp_path / "data.bin.part").exists()


def test_a_spoiled_part_is_not_kept_for_the_next_try(tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(b"spoiled")
    with serving(Behaviour(CONTENT)) as url:
        with pytest.raises(DataError, match="is not what was published"):
            download.fetch(remote(url), tmp_path, retry=HASTY)
        assert download.fetch(remote(url), tmp_path, retry=HASTY).read_bytes() == CONTENT


def test_a_server_with_a_longer_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    longer = CONTENT * 8
    with (
        serving(Behaviour(longer)) as url,
        pytest.raises(DataError, match="is not what was published") as raised,
    ):
        download.fetch(remote(url), tmp_path, retry=HASTY)
    assert "8,388,608 bytes" not in str(raised.value)


def test_a_server_with_a_shorter_file_is_given_up(tmp_path: Path) -> None:
    with serving(Behaviour(CONTENT[:1000])) as url, pytest.raises(DataError, match="the server says 416"):
        download.fetch(remote(url), tmp_path, retry=HASTY)
    assert not (tmp_path / "data.bin.part").exists()


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_server_that_refuses_is_quoted_with_what_to_do_and_not_asked_again(
    tmp_path: Path, status: int
) -> None:
    server = Behaviour(CONTENT, refuse=[status] * 5)
    with serving(server) as url, pytest.raises(DataError, match=f"the server says {status}") as raised:
        download.fetch(remote(url), tmp_path, retry=HASTY)
    assert url in str(raised.value)
    assert "--data synthetic" in str(raised.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(tmp_path: Path, status: int) -> None:
    with serving(Behaviour(CONTENT, refuse=[status, status])) as url:
        assert download.fetch(remote(url), tmp_path, retry=HASTY).read_bytes() == CONTENT


def test_a_silent_server_is_given_up_in_time(tmp_path: Path) -> None:
    started = time.monotonic()
    with (
        serving(Behaviour(CONTENT, stall_seconds=30)) as url,
        pytest.raises(DataError, match="timed out, 3 times"),
    ):
        download.fetch(remote(url), tmp_path, retry=HASTY)
    assert time.monotonic() - started < 5


def test_a_slow_server_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    slow = RetryPolicy(attempts=3, silence_seconds=2, deadline_seconds=0.5, pause_seconds=0.01)
    started = time.monotonic()
    with serving(Behaviour(CONTENT, break_after=1000)) as url, pytest.raises(DataError, match="s are over"):
        download.fetch(remote(url), tmp_path, retry=slow)
    assert time.monotonic() - started < 3
    assert (tmp_path / "data.bin.part").stat().st_size >= 1000, "the next try goes on from here"


def test_an_address_where_nobody_listens_is_reported(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/data.bin"
        with pytest.raises(DataError, match=r"could not be downloaded.*refused.*3 times"):
            download.fetch(remote(url), tmp_path, retry=HASTY)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot keep a download"):
        download.fetch(remote("http://127.0.0.1:9/data.bin"), tmp_path / "file" / "below", retry=HASTY)


def test_two_downloads_of_one_file_take_turns(tmp_path: Path) -> None:
    server = Behaviour(CONTENT)
    with serving(server) as url, (tmp_path / ".data.bin.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = threading.Thread(
            target=download.fetch, args=(remote(url), tmp_path), kwargs={"retry": HASTY}
        )
        second.start()
        time.sleep(0.2)
        assert server.asked == []
        fcntl.flock(held, fcntl.LOCK_UN)
        wait_until((tmp_path / "data.bin").exists, seconds=5)
        second.join(timeout=5)


def test_waiting_for_another_process_has_a_deadline(tmp_path: Path) -> None:
    brief = RetryPolicy(attempts=1, silence_seconds=1, deadline_seconds=0.3)
    with (tmp_path / ".data.bin.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process has long been downloading"):
            download.fetch(remote("http://127.0.0.1:9/data.bin"), tmp_path, retry=brief)


def archive(names: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def test_cifar10_is_fetched_unpacked_and_can_be_loaded(tmp_path: Path) -> None:
    source = cifar10.write_binary(synthetic.draw(train=50, test=10), tmp_path / "source")
    packed = archive({f"cifar-10-batches-bin/{f.name}": f.read_bytes() for f in source.iterdir()})
    with serving(Behaviour(packed)) as url:
        folder = download.fetch_cifar10(tmp_path / "cache", retry=HASTY, source=remote(url, packed))
    assert len(cifar10.load(folder).train) == 50
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == [
        ".data.bin.lock",
        "cifar-10-batches-bin",
    ]


def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    packed = tmp_path / "a" / "data.tar.gz"
    packed.parent.mkdir()
    packed.write_bytes(archive({"../../wanted": b"in", "/etc/other": b"x", "../escaped": b"x"}))
    target = download.unpack(packed, tmp_path / "a" / "out", ["wanted"])
    assert [p.name for p in target.iterdir()] == ["wanted"]
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["data.tar.gz", "wanted"]


def test_a_link_in_an_archive_is_not_followed(tmp_path: Path) -> None:
    packed = tmp_path / "data.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        link = tarfile.TarInfo("wanted")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(DataError, match="lacks wanted"):
        download.unpack(packed, tmp_path / "out", ["wanted"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content",
    [b"no archive", archive({"wanted": bytes(100_000)})[:60]],
    ids=["not an archive", "cut short"],  # gzip writes the time: unnamed, each process would see another test
)
def test_a_damaged_archive_is_reported_and_unpacks_nothing(tmp_path: Path, content: bytes) -> None:
    packed = tmp_path / "data.tar.gz"
    packed.write_bytes(content)
    with pytest.raises(DataError, match="cannot be unpacked"):
        download.unpack(packed, tmp_path / "out", ["wanted"])
    assert [p.name for p in tmp_path.iterdir()] == ["data.tar.gz"]


def test_the_official_addresses_are_encrypted_and_have_checksums() -> None:
    for source in (download.CIFAR10, *download.MNIST):
        assert source.url.startswith("https://")
        assert len(source.md5) == 32
        assert source.size > 0
