"""The gate lets nodes through that agree, and names those that do not."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from infra import bootstrap, gate
from infra.ec2.nodes import Node
from infra.errors import CommandFailed, HostsFailed, SetupError
from infra.gate import Pass
from infra.provision import set_up
from infra.remote import Result
from infra.spec import ClusterSpec
from tests.infra.hosts import ScriptedCluster, ScriptedHost, made_up_nodes

VERSIONS = {"python": "3.11.7", "torch": "2.9.0", "pyspark": "4.3.0", "numpy": "2.4.6"}


def node(number: int, **differing: str) -> Pass:
    return Pass(node=f"worker-{number}", versions=VERSIONS | differing, ahead=(-0.2, 0.1))


def test_nodes_that_agree_pass() -> None:
    gate.check([node(1), node(2), node(3)])


def test_the_node_that_differs_is_marked_in_a_table() -> None:
    with pytest.raises(SetupError, match="do not run the same torch") as refused:
        gate.check([node(1), node(2, torch="2.8.0"), node(3)])
    assert str(refused.value).splitlines()[1:] == [
        "    worker-1     torch 2.9.0",
        "    worker-2     torch 2.8.0  <--",
        "    worker-3     torch 2.9.0",
    ]


def test_clocks_that_certainly_differ_are_refused() -> None:
    with pytest.raises(SetupError, match=r"clocks of worker-2 and worker-1 differ by at least 1\.9 s"):
        gate.check([node(1), replace(node(2), ahead=(2.0, 2.5))])


def test_a_slow_answer_alone_is_no_skew() -> None:
    gate.check([node(1), replace(node(2), ahead=(-5.0, 0.1))])


def test_a_node_tells_its_versions_and_its_clock() -> None:
    told = "".join(f"{key}={value}\n" for key, value in VERSIONS.items()) + f"clock={time.time() + 10}\n"
    passed = gate.show(ScriptedHost(answers={"gate.sh": told}), "worker-1", [], gpus=0)
    assert passed.versions == VERSIONS
    assert 9 < passed.ahead[0] <= passed.ahead[1] < 11


def test_the_script_writes_to_each_folder_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "opt/sparknet").mkdir(parents=True)
    (tmp_path / "opt/sparknet/venv").symlink_to(sys.prefix)
    (tmp_path / "spill").mkdir()
    script = [str(bootstrap.AMI / "gate.sh"), str(tmp_path / "spill")]
    env = {"SPARKNET_ROOT": str(tmp_path), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(["bash", *script], env=env, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "python=3." in ran.stdout
    assert list((tmp_path / "spill").iterdir()) == []
    broken = subprocess.run(
        ["bash", *script, str(tmp_path / "missing")], env=env, capture_output=True, text=True, timeout=60
    )
    assert broken.returncode != 0
    assert "missing cannot be written to" in broken.stderr


def test_a_gpu_that_does_not_answer_ends_the_launch_and_names_its_node() -> None:
    scripted = ScriptedCluster()
    failed = Result(exit_status=1, stdout="", stderr="torch 2.9.0 sees 0 of 1 GPUs; does the driver fit it?")

    def connect(one: Node) -> ScriptedHost:
        host = scripted.connect(one)
        if one.name == "worker-2":
            host.answers = {"gate.sh": failed, **host.answers}
        return host

    with pytest.raises(HostsFailed, match="sees 0 of 1 GPUs") as refused:
        set_up(
            ClusterSpec(), made_up_nodes(2), connect, {"g6.xlarge": 1}, lambda _event: None, poll_seconds=0
        )
    assert list(refused.value.failures) == ["worker-2"]
    assert isinstance(refused.value.failures["worker-2"], CommandFailed)
