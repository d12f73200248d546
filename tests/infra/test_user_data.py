"""What cloud-init gets: the deadline is always in it, and a file of the user's as it was."""

from __future__ import annotations

import base64
import email
import gzip
import os
import random
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from infra.errors import UsageError
from infra.node import bootstrap, user_data
from infra.spec import ClusterSpec

SPEC = ClusterSpec()
EXPIRES = datetime(2026, 12, 1, 5, 30, 7, tzinfo=UTC)


def parts(document: bytes) -> list[tuple[str, bytes]]:
    """Type and content of what a MIME parser, as cloud-init's, finds in it."""
    if document.startswith(user_data.GZIP):
        document = gzip.decompress(document)
    walked = [one for one in email.message_from_bytes(document).walk() if not one.is_multipart()]
    return [(one.get_content_type(), one.get_payload(decode=True)) for one in walked]  # type: ignore[misc]


def of(tmp_path: Path, content: bytes, name: str = "mine") -> list[tuple[str, bytes]]:
    file = tmp_path / name
    file.write_bytes(content)
    return parts(user_data.document(replace(SPEC, user_data=file), expires=EXPIRES))


def test_our_own_file_comes_after_the_deadline() -> None:
    (hook, deadline), (_, own) = parts(user_data.document(SPEC, expires=EXPIRES))
    assert hook == "text/cloud-boothook"
    assert b"\nmoment='2026-12-01 05:30:07 UTC'\n" in deadline
    assert yaml.safe_load(own) == {"package_update": False, "package_upgrade": False}


@pytest.mark.parametrize(
    "content",
    [
        b"#!/bin/sh\necho $HOME @HERE@ @MAX_HOURS@\n",
        b"#cloud-config\nruncmd:\n  - [touch, /mine]\n",
        "#!/bin/sh\necho größer\n".encode(),
        b"#include\nhttps://example.com/more\n",
        b"#!/bin/sh\n# no newline at the end",
        b"#!/bin/sh\n" + b"".join(b"echo %d >>/tmp/%x\n" % (n, n * 7919) for n in range(600)),
    ],
    ids=["script", "config", "text", "include", "cut", "long"],
)
@pytest.mark.parametrize("is_packed", [False, True])
def test_a_file_of_ones_own_keeps_every_byte_and_the_deadline_is_before_it(
    tmp_path: Path, content: bytes, is_packed: bool
) -> None:
    (hook, deadline), (kind, own) = of(tmp_path, gzip.compress(content) if is_packed else content)
    assert (hook, kind) == ("text/cloud-boothook", "text/plain")
    assert b"moment='2026-12-01" in deadline
    assert own.rstrip(b"\n") == content.rstrip(b"\n")


def test_an_archive_of_ones_own_keeps_its_parts(tmp_path: Path) -> None:
    archive = (
        b'Content-Type: multipart/mixed; boundary="B"\nMIME-Version: 1.0\n\n'
        b"--B\nContent-Type: text/x-shellscript\n\n#!/bin/sh\necho one\n"
        b"--B\nContent-Type: text/cloud-config\n\n#cloud-config\nbootcmd: [date]\n--B--\n"
    )
    found = of(tmp_path, archive)
    assert [kind for kind, _ in found] == ["text/cloud-boothook", "text/x-shellscript", "text/cloud-config"]
    assert found[1][1] == b"#!/bin/sh\necho one"


def test_what_is_too_long_for_ec2_is_compressed_and_the_same_each_time(tmp_path: Path) -> None:
    file = tmp_path / "long.sh"
    file.write_bytes(b"#!/bin/sh\n" + b"echo a line that is said over and over\n" * 1000)
    made = [user_data.document(replace(SPEC, user_data=file), expires=EXPIRES) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0].startswith(user_data.GZIP)
    assert len(made[0]) < user_data.MOST_BYTES


def test_without_a_limit_there_is_no_deadline_and_ones_own_file_is_taken_as_it_is(tmp_path: Path) -> None:
    assert user_data.document(SPEC, expires=None) == user_data.CLOUD_CONFIG.read_bytes()
    file = tmp_path / "mine.sh"
    file.write_bytes(gzip.compress(b"#!/bin/sh\n"))
    assert user_data.document(replace(SPEC, user_data=file), expires=None) == file.read_bytes()


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00", user_data.GZIP + b"broken", gzip.compress(b"a" * 99)[:-9]],
    ids=["bytes", "no gzip", "cut off"],
)
def test_what_is_no_text_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError, match=r"--user-data .*mine"):
        of(tmp_path, content)


def test_what_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="more than"):
        of(tmp_path, gzip.compress(b"#" * (user_data.MOST_UNPACKED_BYTES * 4)))


def test_missing_user_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.txt"):
        user_data.document(replace(SPEC, user_data=tmp_path / "nowhere.txt"), expires=EXPIRES)


def units(tmp_path: Path) -> Path:
    """The folder of the units that the deadline's script writes."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "systemctl").write_text("#!/bin/sh\nexit 0\n")
    (tools / "systemctl").chmod(0o755)
    script = bootstrap.render(user_data.DEADLINE.read_text(), {"EXPIRES": "2026-12-01 05:30:07 UTC"})
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "SPARKNET_ROOT": str(tmp_path)}
    subprocess.run(["bash", "-c", script], env=environment, check=True, timeout=30)
    return tmp_path / "etc/systemd/system"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    made = units(tmp_path)
    units_of = ("sparknet-deadline", "sparknet-last-call")
    names = [str(made / f"{name}.{kind}") for name in units_of for kind in ("service", "timer")]
    checked = subprocess.run(
        ["systemd-analyze", "verify", *names], capture_output=True, text=True, timeout=60
    )
    assert "sparknet-" not in checked.stderr, checked.stderr
    moments = [calendar_of(Path(name)) for name in names if name.endswith(".timer")]
    assert moments == ["2026-12-01 05:30:07 UTC", "2026-12-01 05:28:07 UTC"]
    for moment in moments:
        words = ["systemd-analyze", "calendar", moment]
        told = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert told.returncode == 0, told.stderr


def calendar_of(timer: Path) -> str:
    [line] = [one for one in timer.read_text().splitlines() if one.startswith("OnCalendar=")]
    return line.partition("=")[2]


def test_the_unit_calls_the_shutdown_that_is_first_on_the_path(tmp_path: Path) -> None:
    service = (units(tmp_path) / "sparknet-deadline.service").read_text()
    [line] = [one for one in service.splitlines() if one.startswith("ExecStart=")]
    assert line.startswith("ExecStart=/bin/sh -c 'exec shutdown -h now ")


def test_nodes_get_it_in_their_launch_template() -> None:
    from infra.ec2 import template
    from infra.ec2.tags import ClusterTags

    document = user_data.document(SPEC, expires=EXPIRES)
    launch = template.LaunchData(
        image="ami-1", root_device="/dev/sda1", key_pair="k", security_groups=(), user_data=document,
        spill=SPEC.spill,
    )  # fmt: skip
    cluster_tags = ClusterTags.new("c", "g", max_hours=1, extra={})
    assert base64.b64decode(template.data(launch, cluster_tags)["UserData"]) == document


@pytest.mark.parametrize("expires", [EXPIRES, None])
def test_what_ec2_does_not_take_is_refused_and_what_fits_once_packed_is_not(
    expires: datetime | None, tmp_path: Path
) -> None:
    noise = "".join(random.Random(1).choices("abcdefghijklmnop0123456789", k=40_000))
    file = tmp_path / "long.sh"
    file.write_text(f"#!/bin/sh\n# {noise}\n")
    with pytest.raises(UsageError, match=r"long.sh comes to [\d,]+ bytes, and EC2 takes 16,384"):
        user_data.document(replace(SPEC, user_data=file), expires=expires)
    file.write_text("#!/bin/sh\n" + "echo the same again\n" * 2000)
    packed = tmp_path / "long.sh.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert len(user_data.document(replace(SPEC, user_data=packed), expires=expires)) <= user_data.MOST_BYTES
    if expires is None:  # as it is, it is too long; with the deadline it is packed anyhow
        with pytest.raises(UsageError, match="gzip -9"):
            user_data.document(replace(SPEC, user_data=file), expires=None)
