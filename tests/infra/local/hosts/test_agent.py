"""The agent on process hosts: notices, and the end of an idle cluster, by the clock of the cloud."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

from infra.local import LocalCloud
from infra.node import bootstrap
from tests.infra.local.requests import describe, fleet, machine, until, wait_for


def start_agent(cloud: LocalCloud, identity: str, role: str, **settings: str) -> None:
    """It looks five times a second."""
    host = cloud.connect(identity)
    host.put(bootstrap.AMI, host.root / bootstrap.ON_NODE)
    words = " ".join(f"{name} {value}" for name, value in settings.items())
    host.run(f"bash {host.root}/{bootstrap.ON_NODE}/settings.sh {words}", timeout_seconds=20)
    log = f"{host.root}/var/log/sparknet-agent.service.log"
    program = f"{host.root}/opt/sparknet/venv/bin/python -I -S {host.root}/{bootstrap.ON_NODE}/agent"
    host.run(f"setsid {program} {role} 0.2 >{log} 2>&1 </dev/null &", timeout_seconds=20)
    until(
        lambda: f"watches, as a {role}" in read(cloud, identity, "var/log/sparknet-agent.service.log"), "it"
    )


def read(cloud: LocalCloud, identity: str, file: str) -> str:
    host = cloud.connect(identity)
    place = PurePosixPath(host.root) / file
    return host.run(f"cat {place}", timeout_seconds=20, check=False).stdout


def test_a_notice_reaches_the_folder_where_training_looks(hosts_cloud: LocalCloud, hosts_ec2: Any) -> None:
    made = fleet(hosts_ec2, [{"InstanceType": "g6.xlarge"}], 1)["Instances"][0]["InstanceIds"][0]
    wait_for(hosts_ec2, made, "running")
    start_agent(hosts_cloud, made, "worker")
    when = hosts_cloud.control("POST", f"interrupt/{made}", {"notice_seconds": 60})["time"]
    until(lambda: read(hosts_cloud, made, "run/sparknet/notice") != "", "the notice", 20)
    said = json.loads(read(hosts_cloud, made, "run/sparknet/notice"))
    assert (said["action"], said["time"]) == ("terminate", when)
    assert 40 < said["seconds"] <= 61
    log = read(hosts_cloud, made, "var/log/sparknet-agent.service.log")
    assert log.count("EC2 may take this node back soon") == 1


def test_an_idle_master_ends_itself_and_its_worker_after_it(hosts_cloud: LocalCloud, hosts_ec2: Any) -> None:
    behaviour = {"InstanceInitiatedShutdownBehavior": "terminate"}
    master, worker = (machine(hosts_ec2, **behaviour)["InstanceId"] for _ in range(2))
    for one in (master, worker):
        wait_for(hosts_ec2, one, "running")
    address = describe(hosts_ec2, master)["PrivateIpAddress"]
    start_agent(hosts_cloud, master, "master", idle_minutes="10", master=address)
    start_agent(hosts_cloud, worker, "worker", idle_minutes="10", master=address)
    hosts_cloud.control("POST", "clock", {"advance_seconds": 400})
    assert describe(hosts_ec2, master)["State"]["Name"] == "running"
    hosts_cloud.control("POST", "clock", {"advance_seconds": 300})
    wait_for(hosts_ec2, master, "terminated")
    hosts_cloud.control("POST", "clock", {"advance_seconds": 600})
    wait_for(hosts_ec2, worker, "terminated")
    for one in (master, worker):
        assert describe(hosts_ec2, one)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
