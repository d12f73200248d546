"""Nodes pass that compute, write, reach and agree, and those that do not are named."""

from __future__ import annotations

import json
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from infra import provision
from infra.ec2.nodes import Node
from infra.errors import ChecksFailed, DeadlineExceeded, HostsFailed, SetupError
from infra.events import CheckFailed, Event, PhaseEnded
from infra.node import bootstrap, checks
from infra.node.checks import Facts, Folder, Gpu, Problem
from infra.node.host import Result
from infra.provision import Setup, set_up
from infra.spec import ClusterSpec
from tests.infra.hosts import ScriptedCluster, ScriptedHost, account_of, made_up_nodes

SPILL = "/mnt/sparknet/spill-1"
PACKAGES = {"torch": "2.9.0", "pyspark": "4.3.0", "numpy": "2.4.6", "h5py": "3.15.1"}


def node(name: str, **more: str) -> Facts:
    """A node of type g6.xlarge with which all is well, but for other versions of packages (``more``)."""
    return Facts(
        node=name,
        python="3.11.7",
        trainer="0123456789ab",
        packages=PACKAGES | more,
        cuda="12.8",
        driver="580.105.08",
        gpus=(Gpu(name="NVIDIA L4", error=""),),
        folders=(Folder(path=f"{SPILL}/spark", mount_point=SPILL, error=""),),
        mounted=(SPILL,),
        expected_gpus=1,
        ahead=(-0.2, 0.1),
    )


MASTER = replace(node("master"), cuda="12.8", driver="", gpus=(), expected_gpus=0)


def found(*workers: Facts) -> list[str]:
    return [str(one) for one in checks.problems([MASTER, *workers])]


def test_nodes_that_agree_pass() -> None:
    assert found(node("worker-1"), node("worker-2")) == []
    checks.require_none((), 3)


def test_the_node_with_another_trainer_is_named() -> None:
    told = [node("master"), node("worker-1"), replace(node("worker-2"), trainer="")]
    assert [str(one) for one in checks.problems(told)] == [
        "worker-2     trainer   none, where master has 0123456789ab; launch again to install one on all"
    ]


def test_the_node_with_other_packages_is_named_with_what_most_have() -> None:
    assert found(node("worker-1"), node("worker-2", torch="2.8.0", h5py="3.0.0")) == [
        "worker-2     packages  torch 2.8.0 (2.9.0), h5py 3.0.0 (3.15.1), with master's in brackets; "
        "use one image (--ami)"
    ]


def test_a_master_that_differs_from_all_workers_is_the_one_that_is_named() -> None:
    others = [node(f"worker-{number}", pyspark="4.2.0") for number in (1, 2)]
    assert [one.split()[0] for one in found(*others)] == ["master"]


def test_a_package_that_one_node_lacks_is_a_difference() -> None:
    lacking = replace(node("worker-1"), packages={k: v for k, v in PACKAGES.items() if k != "numpy"})
    (problem,) = found(lacking, node("worker-2"))
    assert "numpy missing (2.4.6)" in problem


def test_of_many_packages_that_differ_four_are_named() -> None:
    many = {f"extra-{letter}": "1.0" for letter in "abcdef"}
    (problem,) = found(node("worker-1", **many), node("worker-2"))
    assert "extra-d 1.0 (missing) and 2 more" in problem


def test_another_python_is_told_as_such() -> None:
    (problem,) = found(replace(node("worker-1"), python="3.12.1"), node("worker-2"))
    assert problem == "worker-1     python    3.12.1, where master has 3.11.7"


@pytest.mark.parametrize(
    ("cuda", "driver", "is_fit"),
    [
        ("11.8", "450.80.02", True),
        ("12.8", "525.60.13", True),
        ("12.8", "525.59.01", False),
        ("12.1", "470.256.02", False),
        ("13.0", "580.105.08", True),
        ("13.0", "570.86.10", False),
        ("14.0", "570.86.10", False),  # newer than the table: at least what the one before needs
    ],
)
def test_the_driver_has_to_be_new_enough_for_the_cuda_of_torch(cuda: str, driver: str, is_fit: bool) -> None:
    told = found(replace(node("worker-1"), cuda=cuda, driver=driver))
    assert told == [] if is_fit else [one.split()[1] for one in told] == ["driver"]


def test_no_driver_no_gpu_and_a_torch_of_the_cpu_are_told_apart() -> None:
    assert "no NVIDIA driver" in found(replace(node("worker-1"), driver="", gpus=()))[0]
    assert "built without CUDA" in found(replace(node("worker-1"), cuda="", gpus=()))[0]
    assert "torch sees 1 of 4" in found(replace(node("worker-1"), expected_gpus=4))[0]


def test_a_gpu_that_multiplies_wrong_is_named() -> None:
    broken = (Gpu(name="NVIDIA L4", error="no kernel image is available for execution on the device"),)
    assert found(replace(node("worker-1"), gpus=broken)) == [
        "worker-1     gpu       NVIDIA L4: no kernel image is available for execution on the device"
    ]


def test_a_torch_that_cannot_be_imported_says_why() -> None:
    told = found(replace(node("worker-1"), gpus=(Gpu(name="", error="libcudart.so.13: not found"),)))
    assert told == [
        "worker-1     gpu       torch: libcudart.so.13: not found",
        "worker-1     gpu       torch sees 0 of 1; --without-gpu goes on without",
    ]


def test_without_gpus_to_be_shown_neither_driver_nor_torch_matters() -> None:
    assert found(replace(node("worker-1"), expected_gpus=0, cuda="", driver="", gpus=())) == []


def test_a_folder_that_is_full_and_one_that_is_not_mounted_are_named() -> None:
    full = Folder(path=f"{SPILL}/spark", mount_point=SPILL, error="No space left on device")
    assert f"{SPILL} is full: remove files" in found(replace(node("worker-1"), folders=(full,)))[0]
    dead = Folder(path=f"{SPILL}/spark", mount_point=SPILL, error="Input/output error")
    assert found(replace(node("worker-1"), folders=(dead,))) == [
        f"worker-1     disk      {SPILL} is dead: {SPILL}/spark cannot be written to (Input/output error)"
    ]
    bare = Folder(path=f"{SPILL}/spark", mount_point="/", error="")
    assert found(replace(node("worker-1"), folders=(bare,))) == [
        f"worker-1     disk      {SPILL} is not mounted: what spills would fill /"
    ]


def test_the_root_disk_is_right_for_a_node_without_others() -> None:
    bare = Folder(path="/var/lib/sparknet/spark", mount_point="/", error="")
    assert found(replace(node("worker-1"), folders=(bare,), mounted=("",))) == []


def test_a_clock_that_certainly_differs_from_the_masters_is_named() -> None:
    assert found(
        replace(node("worker-1"), ahead=(2.0, 2.5)), replace(node("worker-2"), ahead=(-9.0, -8.9))
    ) == [
        "worker-1     clock     at least 1.9 s ahead of master's; is a time service running in the image?",
        "worker-2     clock     at least 8.7 s behind master's; is a time service running in the image?",
    ]


def test_a_slow_answer_alone_is_no_skew() -> None:
    assert found(replace(node("worker-1"), ahead=(-5.0, 0.1))) == []


def test_the_clock_is_read_again_when_the_way_there_was_slow() -> None:
    waits = iter([0.6, 0.0])

    def slowly() -> str:
        time.sleep(next(waits))
        return str(time.time() + 10)

    low, high = checks.clock(ScriptedHost(answers={"date": slowly}))
    assert 9 < low <= 10.01
    assert high - low < checks.TIGHT_SECONDS


def test_all_problems_are_one_table() -> None:
    two = [Problem(node="worker-1", check="gpu", said="a"), Problem(node="worker-2", check="disk", said="b")]
    with pytest.raises(ChecksFailed) as failed:
        checks.require_none(two, 3)
    assert failed.value.exit_status == 6
    assert str(failed.value).splitlines() == [
        "2 of 3 nodes are not fit to train together:",
        "    worker-1     gpu       a",
        "    worker-2     disk      b",
    ]


def test_what_cannot_be_read_is_an_error_that_names_the_node() -> None:
    host = ScriptedHost("worker-7", {"date": lambda: str(time.time()), "checks.py": "Segmentation fault"})
    with pytest.raises(SetupError, match=r"worker-7: its account of itself cannot be read"):
        checks.inspect(host, "worker-7", [], gpus=0)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A host's root with this very environment, and a ``mount`` that tells of one disk."""
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin/mount"
    tool.write_text(f"#!/bin/sh\necho '/dev/nvme1n1 on {tmp_path}/mnt/spill type ext4 (rw)'\n")
    tool.chmod(0o755)
    (tmp_path / "mnt/spill/spark").mkdir(parents=True)
    return {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}


def tell(environment: dict[str, str], *words: str) -> dict[str, object]:
    command = [sys.executable, "-I", str(bootstrap.AMI / "checks.py"), *words]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, object] = json.loads(ran.stdout)
    return answer


def test_a_node_tells_its_environment_and_leaves_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    good, missing = tmp_path / "mnt/spill/spark", tmp_path / "other"
    told = tell(environment, "facts", str(good), str(missing))
    assert told["python"] == sys.version.split()[0]
    assert isinstance(told["packages"], dict)
    assert {"torch", "pyspark", "numpy"} <= told["packages"].keys()
    nothing = {"volume": "", "filled_by": ""}
    assert told["folders"] == [
        {"path": str(good), "mount_point": str(tmp_path / "mnt/spill"), "error": "", **nothing},
        {"path": str(missing), "mount_point": "/", "error": "No such file or directory", **nothing},
    ]
    assert list(good.iterdir()) == []
    assert (told["driver"], told["gpus"]) == ("", [])


class FakeCuda:
    """Three GPUs: one is right, one computes wrong, and one has no kernels in this torch."""

    @staticmethod
    def device_count() -> int:
        return 3

    @staticmethod
    def get_device_name(index: int) -> str:
        return f"GPU {index}"


def fake_ones(*shape: int, device: str) -> Any:
    if device == "cuda:2":
        raise RuntimeError("CUDA error: no kernel image is available\nfor execution on the device")
    return np.ones(shape) * (1.01 if device == "cuda:1" else 1)


def test_every_gpu_multiplies_two_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    program = runpy.run_path(str(bootstrap.AMI / "checks.py"))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=FakeCuda, ones=fake_ones))
    assert program["gpus"]() == [
        {"name": "GPU 0", "error": ""},
        {"name": "GPU 1", "error": "computes wrong"},
        {"name": "GPU 2", "error": "CUDA error: no kernel image is available"},
    ]
    monkeypatch.setitem(sys.modules, "torch", None)
    (broken,) = program["gpus"]()
    assert broken["name"] == ""
    assert "torch" in broken["error"]


def test_a_node_tells_which_ports_it_cannot_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        open_port, closed = server.getsockname()[1], taken.getsockname()[1]
        told = tell({"PATH": "/usr/bin:/bin"}, "reach", f"127.0.0.1:{open_port}", f"127.0.0.1:{closed}")
    assert told == {f"127.0.0.1:{open_port}": "", f"127.0.0.1:{closed}": "Connection refused"}


def scripted(change: Callable[[ScriptedHost, Node], None]) -> Callable[[Node], ScriptedHost]:
    """A way to connect to hosts with which all is well, but for what ``change`` does to them."""
    cluster = ScriptedCluster()

    def connect(one: Node) -> ScriptedHost:
        host = cluster.connect(one)
        change(host, one)
        return host

    return connect


def launch(connect: Callable[[Node], ScriptedHost], events: list[Event]) -> None:
    setup = Setup(spec=ClusterSpec(), connect=connect, gpus={"g6.xlarge": 1}, emit=events.append)
    set_up(setup, made_up_nodes(2))


def test_a_cluster_that_is_fit_passes_the_gate_in_one_phase() -> None:
    events: list[Event] = []
    hosts: list[ScriptedHost] = []
    launch(scripted(lambda host, _: hosts.append(host)), events)
    asked = [command for host in hosts for command in host.ran if "checks.py reach" in command]
    assert [event.phase for event in events if isinstance(event, PhaseEnded)][-2:] == ["spark", "verify"]
    assert sorted(" ".join(command.split()[4:]) for command in asked) == [
        "10.0.0.1:7077 10.0.0.2:40000",
        "10.0.0.1:7077 10.0.0.3:40000",
        "10.0.0.2:40000 10.0.0.3:40000",
        "10.0.0.2:40000 10.0.0.3:40000",  # once before: whether somebody listens there at all
    ]


def test_a_gpu_that_does_not_answer_ends_the_launch_and_names_its_node() -> None:
    def blind(host: ScriptedHost, one: Node) -> None:
        if one.name == "worker-2":
            host.answers["checks.py facts"] = lambda: json.dumps(json.loads(account_of(host)) | {"gpus": []})

    events: list[Event] = []
    with pytest.raises(ChecksFailed, match=r"worker-2 +gpu +torch sees 0 of 1") as refused:
        launch(scripted(blind), events)
    assert "worker-1" not in str(refused.value)
    assert [event.node for event in events if isinstance(event, CheckFailed)] == ["worker-2"]


def test_a_port_that_is_closed_between_two_nodes_ends_the_launch() -> None:
    def cut_off(host: ScriptedHost, one: Node) -> None:
        if one.name == "worker-1":
            host.answers["checks.py reach"] = json.dumps({"10.0.0.3:40000": "timed out"})

    with pytest.raises(ChecksFailed, match=r"worker-1 +port +cannot connect to 10.0.0.3:40000: timed out"):
        launch(scripted(cut_off), [])


def test_a_spark_that_does_not_come_up_is_explained_by_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    def differ(host: ScriptedHost, one: Node) -> None:
        host.answers["GET /json/"] = '{"status": "ALIVE", "workers": []}'
        if one.name == "worker-2":
            host.answers["checks.py facts"] = lambda: account_of(host).replace("4.3.0", "4.1.0")

    monkeypatch.setattr(provision, "READY_SECONDS", 0.0)
    with pytest.raises(ChecksFailed, match=r"worker-2 +packages +pyspark 4\.1\.0 \(4\.3\.0\)"):
        launch(scripted(differ), [])
    with pytest.raises(DeadlineExceeded, match=r"lacks worker-1 \(10.0.0.2\), worker-2"):
        launch(scripted(lambda host, one: differ(host, replace(one, name="master"))), [])


def test_workers_of_before_that_spark_still_shows_are_not_asked_for() -> None:
    gone = {"state": "ALIVE", "host": "10.0.0.99", "port": 40000, "cores": 4, "memory": 7000}
    workers = [gone] + [
        {**gone, "host": address, "port": port}
        for address in ("10.0.0.2", "10.0.0.3")
        for port in (31000, 40000)  # the first is that of before a restart
    ]
    asked: list[str] = []

    def restarted(host: ScriptedHost, one: Node) -> None:
        def reach() -> str:
            asked.append(host.ran[-1])
            tried = host.ran[-1].partition(" reach ")[2].split()
            return json.dumps({one: "Connection refused" if one.endswith(":31000") else "" for one in tried})

        host.answers["GET /json/"] = json.dumps({"status": "ALIVE", "workers": workers})
        host.answers["checks.py reach"] = reach

    launch(scripted(restarted), [])
    assert len(asked) == 4
    assert not any("10.0.0.99" in command for command in asked)
    assert any("10.0.0.2:31000 10.0.0.2:40000" in command for command in asked)


def test_an_environment_that_does_not_start_names_its_node() -> None:
    broken = Result(exit_status=1, stdout="", stderr="ModuleNotFoundError: No module named 'encodings'")

    def break_it(host: ScriptedHost, one: Node) -> None:
        if one.name == "worker-2":
            host.answers["checks.py facts"] = broken

    with pytest.raises(HostsFailed, match="No module named 'encodings'") as refused:
        launch(scripted(break_it), [])
    assert list(refused.value.failures) == ["worker-2"]


def test_folders_on_disks_have_to_be_mounted_and_those_of_the_root_disk_not() -> None:
    host = ScriptedHost(answers={"date": lambda: str(time.time()), "checks.py": lambda: account_of(host)})
    folders = [PurePosixPath("/opt/dlami/nvme/sparknet"), PurePosixPath("/var/lib/sparknet/spark")]
    assert checks.inspect(host, "worker-1", folders, gpus=0).mounted == ("/opt/dlami/nvme", "")


def test_what_fills_a_disk_is_told_the_largest_first(tmp_path: Path) -> None:
    program = runpy.run_path(str(bootstrap.AMI / "checks.py"))
    for name, mib in (("spark/deep/a", 3), ("junk", 9), ("little", 0), ("more", 1)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * (mib << 20))
    (tmp_path / "spark/round").symlink_to(tmp_path)
    told = program["fillers"](str(tmp_path))
    assert told == f"9 MiB in {tmp_path}/junk, 3 MiB in {tmp_path}/spark, 1 MiB in {tmp_path}/more"


def test_a_volume_is_known_by_its_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = runpy.run_path(str(bootstrap.AMI / "checks.py"))
    monkeypatch.setenv("SPARKNET_ROOT", str(tmp_path))
    links = tmp_path / "dev/disk/by-id"
    links.mkdir(parents=True)
    (tmp_path / "dev/nvme1n1").touch()
    (links / "nvme-Amazon_Elastic_Block_Store_vol0abc").symlink_to("../../nvme1n1")
    assert program["volume"](str(tmp_path / "dev/nvme1n1")) == "vol-0abc"
    assert program["volume"]("/dev/sda1") == ""
