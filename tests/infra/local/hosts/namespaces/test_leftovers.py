"""Nothing of an embedded cloud outlives it: after terminate, after stop, after SIGKILL, after worse."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from infra.local import clean
from infra.local.hosts.namespaces.clean import leftovers
from infra.local.hosts.namespaces.network import link_of
from infra.local.hosts.processes import HOME_MARK, marked
from tests.infra.local.hosts.namespaces.rig import Rig, allow, rig_in, said
from tests.infra.local.requests import describe, until

pytestmark = [pytest.mark.rig, pytest.mark.slow]

KINDS = ("net", "mnt", "pid", "uts", "ipc")
DISK = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": True}}
USE = (
    "sudo mkfs.ext4 -q /dev/nvme1n1 && sudo mount /dev/nvme1n1 /mnt && sudo touch /mnt/x && "
    "nohup sleep 600 >&- 2>&- &"
)


@dataclass(frozen=True)
class Traces:
    """What of a cloud this machine shows."""

    links: frozenset[str]
    routes: frozenset[str]
    leftovers: frozenset[str]  # loop devices, mounts, the link
    namespaces: frozenset[str]
    processes: frozenset[int]


def traces(home: Path) -> Traces:
    """Of the network all of this machine's; of the rest only the cloud's, since others work here too."""
    own = [process.pid for process in marked(HOME_MARK, str(home))]
    inside = {pid for one in own for pid in (one, *children(one))}
    return Traces(
        links=frozenset(path.name for path in Path("/sys/class/net").iterdir()),
        routes=frozenset(
            subprocess.check_output(["ip", "route", "show", "table", "all"], text=True).splitlines()
        ),
        leftovers=frozenset(leftovers(home)),
        namespaces=frozenset(ns for pid in inside for ns in namespaces_of(pid)),
        processes=frozenset(inside),
    )


def children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def namespaces_of(pid: int) -> list[str]:
    found = []
    for kind in KINDS:
        try:
            link = str(Path(f"/proc/{pid}/ns/{kind}").readlink())
        except OSError:
            continue
        if link != str(Path(f"/proc/self/ns/{kind}").readlink()):
            found.append(link)
    return found


def all_namespaces() -> set[str]:
    """Of every process of this machine."""
    return {
        ns
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        for ns in namespaces_of(int(entry.name))
    }


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    clean(tmp_path)


def in_use(rig: Rig) -> tuple[str, Traces]:
    """An instance with a mounted volume and a process of its own, and the traces it leaves while it runs."""
    [instance] = rig.launch(InstanceType="g6.xlarge", BlockDeviceMappings=[DISK])
    said(rig.host(instance), USE)
    found = traces(rig.home)
    assert len(found.leftovers) == 4  # link, root disk, volume, instance store
    assert len(found.processes) >= 5
    return instance, found


def nothing_is_left(home: Path, before: Traces, during: Traces) -> bool:
    return traces(home) == before and not during.namespaces & all_namespaces()


def test_terminate_leaves_the_machine_as_it_was_before_the_instance(folder: Path) -> None:
    with rig_in(folder) as rig:
        before = traces(rig.home)
        instance, during = in_use(rig)
        rig.end(instance)
        hosts = during.namespaces - before.namespaces
        until(
            lambda: traces(rig.home) == before and not hosts & all_namespaces(), "all of the host to be gone"
        )


@pytest.mark.parametrize("how", ["stop", "SIGTERM", "SIGKILL"])
def test_the_end_of_the_server_is_the_end_of_all(folder: Path, how: str) -> None:
    before = traces(folder / "local")
    with rig_in(folder) as rig:
        _, during = in_use(rig)
        if how == "stop":
            rig.cloud.stop()
        else:
            os.kill(rig.cloud.pid, getattr(signal, how))
        until(lambda: nothing_is_left(rig.home, before, during), "all to be gone by itself")


def test_clean_ends_what_a_killed_server_could_not(folder: Path) -> None:
    """Hosts and network are frozen, so that they cannot notice; one more loop device is nobody's."""
    before = traces(folder / "local")
    with rig_in(folder) as rig:
        _, during = in_use(rig)
        subprocess.run(["losetup", "--find", stray(rig.home)], check=True)
        for pid in during.processes - {rig.cloud.pid}:
            with suppress(ProcessLookupError):  # the end of an ssh session
                os.kill(pid, signal.SIGSTOP)
        os.kill(rig.cloud.pid, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(rig.cloud.pid), "the server to be gone")
        assert traces(rig.home).leftovers
        clean(folder)
        until(lambda: nothing_is_left(rig.home, before, during), "all to be gone")
        assert not rig.home.exists()


def stray(home: Path) -> str:
    file = home / "stray.img"
    with file.open("wb") as image:
        image.truncate(1 << 20)
    return str(file)


def test_two_clouds_side_by_side_share_no_address_and_no_host(rig: Rig, folder: Path) -> None:
    with rig_in(folder) as other:
        [mine], [theirs] = rig.launch(), other.launch()
        facts = [describe(rig.ec2, mine), describe(other.ec2, theirs)]
        for one in ("PrivateIpAddress", "PublicIpAddress"):
            assert facts[0][one] != facts[1][one]
        assert link_of(rig.home) != link_of(other.home)
        assert said(rig.host(mine), "hostname") != said(other.host(theirs), "hostname")
        allow(rig, rig.group, 7000, cidr="0.0.0.0/0")
        ping = f"timeout 2 bash -c '</dev/tcp/{facts[0]['PrivateIpAddress']}/22'"
        assert other.host(theirs).run(ping, timeout_seconds=10, check=False).exit_status != 0
    assert said(rig.host(mine), "echo alive") == "alive"
    rig.end(mine)
