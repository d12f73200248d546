"""The deadline of --max-hours on process hosts: by the clock of the cloud, from the cluster's beginning."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from infra.errors import HostError
from infra.local import LocalCloud
from infra.node import agent, bootstrap
from tests.infra.local.deadlines import ends_in
from tests.infra.local.requests import describe, machine, until, wait_for

TIMER = "systemctl is-active sparknet-deadline.timer"


def launch(cloud: LocalCloud, ec2: Any, data: bytes) -> str:
    made = machine(ec2, UserData=data, InstanceInitiatedShutdownBehavior="terminate")["InstanceId"]
    wait_for(ec2, made, "running")
    until(lambda: says(cloud, made, TIMER) == "active", "the timer to run", 30)
    return str(made)


def says(cloud: LocalCloud, identity: str, command: str) -> str:
    try:
        return cloud.connect(identity).run(command, timeout_seconds=20, check=False).stdout.strip()
    except HostError:
        return ""


def test_a_host_ends_itself_at_the_deadline_which_no_reboot_puts_off(
    hosts_cloud: LocalCloud, hosts_ec2: Any, tmp_path: Path
) -> None:
    made = launch(hosts_cloud, hosts_ec2, ends_in(hosts_cloud, 7200, tmp_path))
    until(lambda: says(hosts_cloud, made, "ls $SPARKNET_ROOT/var/log/own") != "", "the user's own script")
    hosts_cloud.control("POST", "clock", {"advance_seconds": 5400})
    pid = f"{TIMER}; cat $SPARKNET_ROOT/run/units/sparknet-deadline.timer.pid"
    before = says(hosts_cloud, made, pid)
    hosts_ec2.reboot_instances(InstanceIds=[made])
    until(lambda: says(hosts_cloud, made, pid).split()[:1] == ["active"] and
          says(hosts_cloud, made, pid) != before, "the timer to run again", 30)  # fmt: skip
    assert describe(hosts_ec2, made)["State"]["Name"] == "running"
    hosts_cloud.control("POST", "clock", {"advance_seconds": 1900})
    wait_for(hosts_ec2, made, "terminated")
    assert describe(hosts_ec2, made)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_a_deadline_that_passed_while_the_host_was_stopped_is_not_lost(
    hosts_cloud: LocalCloud, hosts_ec2: Any, tmp_path: Path
) -> None:
    made = launch(hosts_cloud, hosts_ec2, ends_in(hosts_cloud, 7200, tmp_path))
    hosts_ec2.stop_instances(InstanceIds=[made])
    wait_for(hosts_ec2, made, "stopped")
    hosts_cloud.control("POST", "clock", {"advance_seconds": 7300})
    hosts_ec2.start_instances(InstanceIds=[made])
    wait_for(hosts_ec2, made, "terminated")


def test_the_deadline_comes_sooner_where_time_runs_faster(
    hosts_cloud: LocalCloud, hosts_ec2: Any, tmp_path: Path
) -> None:
    made = launch(hosts_cloud, hosts_ec2, ends_in(hosts_cloud, 12 * 3600, tmp_path))
    hosts_cloud.control("POST", "clock", {"speed": 12 * 3600})
    try:
        wait_for(hosts_ec2, made, "terminated")
    except TimeoutError:  # it was forgotten an hour of that time later
        raise AssertionError(f"{made} is still there") from None
    finally:
        hosts_cloud.control("POST", "clock", {"speed": 1})


def test_an_end_that_is_moved_stays_moved_at_the_next_boot_and_jobs_are_told_before_it(
    hosts_cloud: LocalCloud, hosts_ec2: Any, tmp_path: Path
) -> None:
    made = launch(hosts_cloud, hosts_ec2, ends_in(hosts_cloud, 7200, tmp_path))
    host = hosts_cloud.connect(made)
    host.put(bootstrap.AMI, host.root / bootstrap.ON_NODE)
    now = datetime.fromisoformat(hosts_cloud.control("POST", "clock", {})["now"])
    agent.set_end(host, now + timedelta(hours=5))
    pid = f"{TIMER}; cat $SPARKNET_ROOT/run/units/sparknet-deadline.timer.pid"
    before = says(hosts_cloud, made, pid)
    hosts_ec2.reboot_instances(InstanceIds=[made])
    until(lambda: says(hosts_cloud, made, pid).split()[:1] == ["active"] and
          says(hosts_cloud, made, pid) != before, "the timer to run again", 30)  # fmt: skip
    hosts_cloud.control("POST", "clock", {"advance_seconds": 4 * 3600})
    notice = "cat $SPARKNET_ROOT/run/sparknet/notice"
    time.sleep(3)
    assert describe(hosts_ec2, made)["State"]["Name"] == "running"
    assert says(hosts_cloud, made, notice) == ""
    hosts_cloud.control("POST", "clock", {"advance_seconds": 3600 - 60})
    until(lambda: '"action": "end"' in says(hosts_cloud, made, notice), "jobs to be told", 30)
    assert describe(hosts_ec2, made)["State"]["Name"] == "running"
    hosts_cloud.control("POST", "clock", {"advance_seconds": 120})
    wait_for(hosts_ec2, made, "terminated")


def test_a_node_may_be_told_that_it_has_no_end(
    hosts_cloud: LocalCloud, hosts_ec2: Any, tmp_path: Path
) -> None:
    made = launch(hosts_cloud, hosts_ec2, ends_in(hosts_cloud, 3600, tmp_path))
    host = hosts_cloud.connect(made)
    host.put(bootstrap.AMI, host.root / bootstrap.ON_NODE)
    agent.set_end(host, None)
    assert says(hosts_cloud, made, TIMER) == "inactive"
    hosts_cloud.control("POST", "clock", {"advance_seconds": 4000})
    time.sleep(3)
    assert describe(hosts_ec2, made)["State"]["Name"] == "running"
