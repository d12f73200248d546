"""What a node is given: readable without AWS, whole, and accepted by the tools that will read it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from infra.node import bootstrap, spark
from infra.node.spark import NodeConfig, NodeResources
from infra.spec import ClusterSpec
from tests.infra.hosts import ScriptedHost

SPEC = ClusterSpec()
CONFIG = NodeConfig(
    address="10.0.0.5",
    master_address="10.0.0.4",
    resources=NodeResources(user="ubuntu", cores=4, memory_mib=15900, gpus=1),
    local_dirs=(PurePosixPath("/mnt/sparknet/store0/spark"), PurePosixPath("/mnt/sparknet/spill0/spark")),
    secret="s" * 64,
    worker_memory_mib=7000,
    executor_memory_mib=7000,
    executor_gpus=1,
)
SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
SCRIPTS = sorted([*bootstrap.AMI.glob("*.sh"), *bootstrap.AMI.glob("*/*.sh")])


def test_a_placeholder_without_a_value_is_a_defect() -> None:
    with pytest.raises(KeyError, match="NAME"):
        bootstrap.render("hello @NAME@", {})


def test_the_wanted_version_of_spark_reaches_the_script() -> None:
    steps = {step.name: step for step in bootstrap.steps(replace(SPEC, spark_version="4.0.1"), gpus=0)}
    assert "pyspark==4.0.1" in steps["python"].env["PACKAGES"].split()


def test_every_script_of_a_step_exists() -> None:
    for step in bootstrap.steps(SPEC, gpus=1):
        assert (bootstrap.AMI / step.script).is_file()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_says_what_it_does_and_stops_at_the_first_failure(script: Path) -> None:
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1].startswith("# ")
    assert "set -euo pipefail" in lines
    assert os.access(script, os.X_OK)


@pytest.mark.skipif(not SHELLCHECK, reason="shellcheck is not installed")
def test_the_scripts_are_clean() -> None:
    ran = subprocess.run([str(SHELLCHECK), *map(str, SCRIPTS)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout


def written(host: ScriptedHost, name: str) -> str:
    return next(text for command, text in host.stdin.items() if f"/{name}.new" in command)


def test_spark_listens_on_the_private_address_and_asks_for_the_secret() -> None:
    host = ScriptedHost()
    spark.configure(host, CONFIG)
    conf = dict(
        line.split(None, 1)
        for line in written(host, "spark-defaults.conf").splitlines()
        if line and not line.startswith("#")
    )
    assert conf["spark.authenticate"] == "true"
    assert conf["spark.authenticate.secret"] == "s" * 64
    assert conf["spark.master.rest.enabled"] == "false"
    assert conf["spark.decommission.enabled"] == "true"
    assert conf["spark.executor.memory"] == "7000m"
    assert conf["spark.worker.resource.gpu.amount"] == "1"
    environment = written(host, "spark-env.sh")
    assert "SPARK_LOCAL_IP='10.0.0.5'" in environment
    assert "SPARK_LOCAL_DIRS='/mnt/sparknet/store0/spark,/mnt/sparknet/spill0/spark'" in environment
    assert "SPARK_WORKER_CORES='4'" in environment


def test_the_secret_is_on_no_command_line_and_in_files_of_mode_600() -> None:
    host = ScriptedHost()
    spark.configure(host, CONFIG)
    assert not any(CONFIG.secret in command for command in host.ran)
    holders = [command for command, text in host.stdin.items() if CONFIG.secret in text]
    assert len(holders) == 2
    assert all("chmod 600" in command and "umask 077" in command for command in holders)


def test_a_node_without_a_gpu_still_asks_its_executors_for_the_workers() -> None:
    host = ScriptedHost()
    master = replace(CONFIG, resources=replace(CONFIG.resources, gpus=0))
    spark.configure(host, master)
    text = written(host, "spark-defaults.conf")
    assert "spark.executor.resource.gpu.amount" in text
    assert "spark.worker.resource.gpu.amount" not in text


def test_the_logs_of_the_daemons_are_rotated(tmp_path: Path) -> None:
    make_sudo(tmp_path / "bin")
    ran = subprocess.run(
        ["bash", str(bootstrap.AMI / "10-system.sh")],
        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SPARKNET_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    text = (tmp_path / "etc/logrotate.d/sparknet").read_text()
    assert f"{tmp_path}/var/log/sparknet-*.log {{" in text
    assert {"copytruncate", "rotate 3"} <= {line.strip() for line in text.splitlines()}


def make_sudo(folder: Path) -> None:
    """A sudo that only runs the command, and a cloud-init that is done."""
    folder.mkdir()
    for name, text in (("sudo", 'exec "$@"'), ("cloud-init", "exit 0")):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
@pytest.mark.parametrize("unit", [spark.MASTER_UNIT, spark.WORKER_UNIT])
def test_systemd_accepts_the_units(unit: str, tmp_path: Path) -> None:
    host = ScriptedHost()
    spark.start(host, unit, CONFIG)
    text = written(host, f"{unit}.service").replace(
        "/opt/sparknet/spark/bin/spark-class", shutil.which("true") or ""
    )
    file = tmp_path / f"{unit}.service"
    file.write_text(text)
    ran = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, timeout=60)
    complaints = [line for line in ran.stderr.splitlines() if unit in line]
    assert complaints == []


def test_half_of_the_memory_is_for_spark_and_never_too_little() -> None:
    assert NodeResources(user="u", cores=4, memory_mib=16512, gpus=0).spark_memory_mib == 8000
    assert NodeResources(user="u", cores=1, memory_mib=900, gpus=0).spark_memory_mib == 512


def test_a_newcomer_offers_as_much_as_executors_have_where_that_is_not_nearly_all_of_it() -> None:
    newcomer = NodeResources(user="u", cores=4, memory_mib=15900, gpus=0)  # half of the rest: 7694
    assert newcomer.offered_memory_mib(0) == 7694
    assert newcomer.offered_memory_mib(7000) == 7694
    assert newcomer.offered_memory_mib(7750) == 7750
    assert newcomer.offered_memory_mib(15000) == 7694


FIRST = "[Service]\nEnvironment=SPARKNET_BOUND_TO=a\nExecStart=/bin/sleep 60\n"


@pytest.mark.parametrize(
    ("draft", "words", "starts_again"),
    [
        (FIRST, [], False),
        (FIRST.replace("60", "61"), [], False),  # of another version, say
        (FIRST.replace("=a", "=b"), [], True),
        (FIRST, ["again"], True),
    ],
)
def test_a_daemon_that_runs_is_started_again_only_for_another_master_or_other_disks(
    draft: str, words: list[str], starts_again: bool, tmp_path: Path
) -> None:
    make_sudo(tmp_path / "bin")
    (tmp_path / "bin/systemctl").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/said\n')
    (tmp_path / "bin/systemctl").chmod(0o755)
    installed = tmp_path / "etc/systemd/system/one.service"
    installed.parent.mkdir(parents=True)
    installed.write_text(FIRST)
    (tmp_path / "draft").write_text(draft)
    ran = subprocess.run(
        ["bash", str(bootstrap.AMI / "spark/start-unit.sh"), str(tmp_path / "draft"), "one", *words],
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SPARKNET_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert installed.read_text() == draft
    assert ("restart one" in (tmp_path / "said").read_text()) == starts_again


@pytest.mark.parametrize("is_genuine", [True, False])
def test_java_is_the_very_file_whose_sum_is_kept_here(is_genuine: bool, tmp_path: Path) -> None:
    java = bootstrap.versions()["java"]
    assert "latest" not in java["url"]
    assert re.fullmatch("[0-9a-f]{64}", java["sha256"])
    (tmp_path / "amazon-corretto").mkdir()
    (tmp_path / "amazon-corretto/release").write_text('JAVA_VERSION="17"\n')
    archive = tmp_path / "java.tar.gz"
    subprocess.run(
        ["tar", "-czf", str(archive), "-C", str(tmp_path), "amazon-corretto"], check=True, timeout=60
    )
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "curl").write_text(
        '#!/bin/sh\nwhile [ "$1" != --output ]; do shift; done\n' + f'cp {archive} "$2"\n'
    )
    (tools / "curl").chmod(0o755)
    script = (bootstrap.AMI / "40-spark.sh").read_text()
    function = re.search(r"^fetch_java\(\) \{.*?^\}", script, re.MULTILINE | re.DOTALL)
    assert function is not None
    digest = hashlib.sha256(archive.read_bytes()).hexdigest() if is_genuine else "0" * 64
    ran = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{function[0]}\nfetch_java"],
        env={
            "PATH": f"{tools}:{os.environ['PATH']}",
            "home": str(tmp_path / "node"),
            "JAVA_URL": java["url"],
            "JAVA_SHA256": digest,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode == 0) == is_genuine, ran.stderr
    assert (tmp_path / "node/jdk/release").exists() == is_genuine
    if not is_genuine:
        assert "is not the file that versions.toml has the SHA-256 of" in ran.stderr


def test_what_a_step_needs_is_given_to_it() -> None:
    for step in bootstrap.steps(SPEC, gpus=1):
        script = (bootstrap.AMI / step.script).read_text()
        for name in step.env:
            assert f"${name}" in script or f"${{{name}" in script, f"{step.script} has no use for {name}"
