"""A whole cluster on namespace hosts, by the command: launched, looked at, used, rebooted, destroyed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from infra.cli.target import Target
from infra.cluster import launch
from infra.ec2 import nodes
from infra.errors import HostError
from infra.events import Event, NodeProgress, NodeReplaced
from infra.local import LocalCloud, clean, open_cloud
from infra.local.hosts.namespaces import missing
from infra.local.hosts.processes import INSTANCE_MARK, marked
from infra.node import login
from infra.node.ssh import SSHHost
from infra.spec import ClusterSpec
from tests.infra.local.conftest import client
from tests.infra.local.hosts.namespaces.rig import said
from tests.infra.local.hosts.namespaces.test_leftovers import all_namespaces, traces
from tests.infra.local.requests import until

pytestmark = [pytest.mark.rig, pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(600)]

COMMAND = [sys.executable, "-c", "from infra.cli import main; main()"]
ROOT = Path(__file__).parents[5]
PROGRAM = """
import os, socket, time
from pyspark.sql import SparkSession

context = SparkSession.builder.getOrCreate().sparkContext

def look(_):
    time.sleep(0.5)
    folders = os.environ["SPARK_LOCAL_DIRS"].split(",")
    mounted = all(os.path.ismount("/".join(folder.split("/")[:4])) for folder in folders)
    return socket.gethostname(), os.getuid(), len(folders), mounted

print("seen", sorted(set(context.parallelize(range(8), 8).map(look).collect())))
pairs = context.parallelize(range(200000), 8).map(lambda number: (number % 1000, number))
print("groups", pairs.groupByKey(8).count())
"""


class Cluster:
    """The command in a home of its own, and the hosts it made."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data = home.with_name("data-of-cluster")
        self.data.mkdir(exist_ok=True)
        (self.data / "pictures").write_text("seen")
        self.events: list[Event] = []
        self.cut_off: list[str] = []
        self.hosts: list[SSHHost] = []

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The command, at work."""
        return subprocess.Popen(
            [*COMMAND, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "SPARKNET_EC2_HOME": str(self.home), "SPARKNET_EC2_HOSTS": "namespaces"},
        )

    def run(self, *words: str, timeout_seconds: float = 300.0) -> str:
        """What the command says; it must succeed."""
        process = self.start(*words)
        said, error = process.communicate(timeout=timeout_seconds)
        assert process.returncode == 0, said + error
        return said

    @property
    def cloud(self) -> LocalCloud:
        cloud = open_cloud(self.home, start=False)
        assert cloud is not None
        return cloud

    @property
    def instances(self) -> list[dict[str, Any]]:
        """Those that run, the master first."""
        running = [{"Name": "instance-state-name", "Values": ["running"]}]
        with closing(client(self.cloud)) as ec2:
            reservations = ec2.describe_instances(Filters=running)["Reservations"]
        found = [instance for reservation in reservations for instance in reservation["Instances"]]
        return sorted(found, key=lambda one: "master" not in str(one["Tags"]))

    def host(self, instance: dict[str, Any]) -> SSHHost:
        [key] = [path for path in (self.home / "local/keys").rglob("*") if path.is_file()]
        known = self.home / f"known-{len(self.hosts)}"
        host = SSHHost(
            instance["InstanceId"], instance["PublicIpAddress"], user="ubuntu", key=key, known_hosts=known
        )
        self.hosts.append(host)
        return host

    def end(self) -> None:
        for host in self.hosts:
            host.close()
        clean(self.home)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if lacking := missing():
        pytest.skip(f"no namespace hosts here: {'; '.join(lacking)}")
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        launch_with_a_cut(made)
        yield made
    finally:
        made.end()


def launch_with_a_cut(made: Cluster) -> None:
    """Launch two workers, one of which loses its network in the midst of its installation."""

    def emit(event: Event) -> None:
        made.events.append(event)
        if made.cut_off or not isinstance(event, NodeProgress):
            return
        if (event.node, event.phase) == ("worker-1", "python"):
            [lost] = [one for one in nodes.describe(cloud.region, "sparknet") if one.name == "worker-1"]
            made.cut_off.append(lost.id)
            cut_off(lost.id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARKNET_EC2_HOME", str(made.home))
        patch.setenv("SPARKNET_EC2_HOSTS", "namespaces")
        patch.setenv("SPARKNET_DATA", str(made.data))
        patch.setattr(login, "CONNECT_SECONDS", 3.0)
        patch.setattr(login, "KEEPALIVE_SECONDS", 1)
        patch.setattr(login, "SILENCE_MILLISECONDS", 4000)
        cloud = Target(cloud="local", region="us-east-1", name="sparknet").open(emit, start=True)
        assert cloud is not None
        launch(cloud, ClusterSpec(workers=2, require_gpus=False), emit)


def cut_off(instance_id: str) -> None:
    """From now on no packet leaves or enters the host."""
    drop = "chain {0} {{\n type filter hook {0} priority -10; policy drop\n}}\n"
    table = f"table inet cut {{\n{drop.format('input')}{drop.format('output')}}}\n"
    network = f"/proc/{marked(INSTANCE_MARK, instance_id)[0].pid}/ns/net"
    command = ["nsenter", f"--net={network}", "nft", "-f", "-"]
    subprocess.run(command, input=table, text=True, check=True, timeout=30)


def facts(host: SSHHost) -> str:
    """What a second launch must not change."""
    return said(
        host,
        "cat /etc/fstab; findmnt -rno TARGET,SOURCE,FSTYPE -t ext4,xfs; sudo blkid /dev/nvme*; "
        "sudo md5sum /opt/sparknet/conf/*; pgrep -a java | cut -d' ' -f1",
    )


def test_a_node_whose_network_is_cut_during_the_launch_is_replaced(cluster: Cluster) -> None:
    [replaced] = [event for event in cluster.events if isinstance(event, NodeReplaced)]
    assert [replaced.id] == cluster.cut_off
    assert "the connection was lost" in replaced.why or "does not answer" in replaced.why
    assert replaced.id not in {one["InstanceId"] for one in cluster.instances}
    [journal] = (cluster.home / "local/logs").rglob(f"*{replaced.id}.log")
    assert "30-python.sh" in journal.read_text()


def test_every_node_has_its_disks_mounted_for_good_and_its_spark_running(cluster: Cluster) -> None:
    master, *workers = cluster.instances
    assert len(workers) == 2
    for instance in workers:
        host = cluster.host(instance)
        assert said(host, "hostname") == "ip-" + instance["PrivateIpAddress"].replace(".", "-")
        assert said(host, "systemctl is-active sparknet-worker; ps -o user= -C java").split() == [
            "active",
            "ubuntu",
        ]
        listening = said(host, "ss -Hltn | awk '{print $4}'").splitlines()
        ours = [one for one in listening if not one.endswith(":22") and "127.0.0.1" not in one]
        assert ours
        assert all(instance["PrivateIpAddress"] in one for one in ours)
        for name in ("store0", "spill0"):
            mount = f"/mnt/sparknet/{name}"
            source, kind = said(host, f"findmnt -no SOURCE,FSTYPE {mount}").split()
            assert source.startswith("/dev/nvme")
            uuid = said(host, f"sudo blkid -o value -s UUID {source}")
            assert said(host, f"grep ^UUID={uuid} /etc/fstab").split()[1:3] == [mount, kind]
            assert said(host, f"stat -c %U {mount}; sudo blkid -o value -s LABEL {source}").split() == [
                "ubuntu",
                name,
            ]
        folders = said(host, ". /opt/sparknet/conf/spark-env.sh && echo $SPARK_LOCAL_DIRS")
        assert folders == "/mnt/sparknet/store0/spark,/mnt/sparknet/spill0/spark"
    assert said(cluster.host(master), "systemctl is-active sparknet-master") == "active"


def test_the_folder_of_data_sets_can_be_read_on_every_node(cluster: Cluster) -> None:
    for instance in cluster.instances:
        host = cluster.host(instance)
        assert said(host, f"cat {cluster.data}/pictures") == "seen"
        assert "Read-only" in said(host, f"touch {cluster.data}/more 2>&1 || true")


def test_launching_again_changes_nothing(cluster: Cluster) -> None:
    hosts = [cluster.host(instance) for instance in cluster.instances]
    before = [facts(host) for host in hosts]
    cluster.run("launch", "-s", "2")
    assert [facts(host) for host in hosts] == before


def test_a_program_runs_on_both_workers_over_the_bridge(cluster: Cluster, tmp_path: Path) -> None:
    program = tmp_path / "look.py"
    program.write_text(PROGRAM)
    output = cluster.run("submit", str(program), "--output", str(tmp_path / "results"))
    names = sorted("ip-" + one["PrivateIpAddress"].replace(".", "-") for one in cluster.instances[1:])
    assert f"seen {[(name, 1000, 2, True) for name in names]}" in output
    assert "groups 1000" in output


def boot_of(cluster: Cluster, instance: dict[str, Any]) -> str:
    """When the host came up, or "" while it does not answer."""
    try:
        return said(cluster.host(instance), "stat -c %y /run/init.pid", timeout_seconds=5)
    except HostError:
        return ""


def test_a_worker_that_reboots_comes_back_by_itself(cluster: Cluster) -> None:
    worker = cluster.instances[1]
    before = said(cluster.host(worker), "findmnt -rno TARGET,FSTYPE -t ext4")
    booted = boot_of(cluster, worker)
    with closing(client(cluster.cloud)) as ec2:
        ec2.reboot_instances(InstanceIds=[worker["InstanceId"]])
    until(lambda: boot_of(cluster, worker) not in ("", booted), "the worker to boot", 60)
    until(lambda: "ALIVE, 2 workers" in cluster.run("status"), "the worker to be back", 120)
    assert said(cluster.host(worker), "findmnt -rno TARGET,FSTYPE -t ext4") == before


LARGE = 200_000_000
WRITER = f"""
import os, time
with open(os.path.join(os.environ["SPARKNET_OUTPUT"], "large"), "wb") as file:
    for _ in range({LARGE // 1_000_000}):
        file.write(os.urandom(1_000_000))
print("written", flush=True)
time.sleep(600)
"""


def test_results_survive_the_end_of_sshd_and_a_reboot_of_the_master(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "writer").mkdir()
    (tmp_path / "writer/writer.py").write_text(WRITER)
    job = cluster.run("submit", str(tmp_path / "writer"), "--detach").strip()
    until(lambda: "written" in cluster.run("logs", "-n", "1", job), "the file to be written", 60)
    master = cluster.instances[0]
    there = said(cluster.host(master), f"sha256sum /var/lib/sparknet/jobs/{job}/output/large").split()[0]
    copy = cluster.start("results", job, "--output", str(tmp_path / "results"))

    def has_come(size: int) -> bool:
        assert copy.poll() is None, copy.communicate()
        parts = (tmp_path / "results/.unfinished").glob("?" * 32)
        return any(part.stat().st_size > size for part in parts)

    until(lambda: has_come(LARGE // 20), "the copy to begin", 60)
    # the session that asks ends with the others
    with suppress(HostError):
        said(cluster.host(master), "sudo pkill -KILL -f '^sshd.*ubuntu'")
    until(lambda: has_come(LARGE // 4), "the copy to go on", 60)
    with closing(client(cluster.cloud)) as ec2:
        ec2.reboot_instances(InstanceIds=[master["InstanceId"]])
    told, _ = copy.communicate(timeout=240)
    assert copy.returncode == 0, told
    with (tmp_path / "results/large").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == there
    (lost,) = [one for one in json.loads(cluster.run("jobs", "--json")) if one["id"] == job]
    assert (lost["state"], lost["exit_code"], lost["ended_by"]) == ("lost", None, "machine")
    until(lambda: "ALIVE, 2 workers" in cluster.run("status"), "Spark to be back", 120)


def test_destroy_leaves_nothing(cluster: Cluster) -> None:
    during = traces(cluster.home / "local")
    assert during.leftovers
    cluster.run("destroy", "--yes")
    until(lambda: not traces(cluster.home / "local").leftovers, "links, loops and mounts to be gone")
    until(lambda: not during.namespaces & all_namespaces(), "namespaces to be gone")
    assert not traces(cluster.home / "local").processes
