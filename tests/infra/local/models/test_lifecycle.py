"""States that follow the machine behind the instance, whoever ends it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.errors import HostUnreachable, SetupError
from infra.local import LocalCloud
from infra.local.hosts.processes import INSTANCE_MARK, marked
from tests.infra.local.requests import code_of, describe, machine, machines, state, until, wait_for

SPILL = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 8, "DeleteOnTermination": True}}


def boot(ec2: Any, **parameters: Any) -> str:
    instance_id = str(machine(ec2, **parameters)["InstanceId"])
    wait_for(ec2, instance_id, "running")
    return instance_id


def init_pid(cloud: LocalCloud, instance_id: str) -> int:
    return int((cloud.folder / "hosts" / instance_id / "run/init.pid").read_text())


def reason(ec2: Any, instance_id: str) -> str:
    return str(describe(ec2, instance_id)["StateReason"]["Code"])


def test_terminating_leaves_no_process_no_folder_no_volume(hosts_cloud: LocalCloud, hosts_ec2: Any) -> None:
    instance_id = boot(hosts_ec2, BlockDeviceMappings=[SPILL])
    host = hosts_cloud.connect(instance_id)
    host.run(
        "nohup setsid sleep 300 >/dev/null 2>&1 & env -i setsid sleep 300 >/dev/null 2>&1 &",
        timeout_seconds=5,
    )
    sleepers = until(lambda: _sleepers(init_pid(hosts_cloud, instance_id), 2), "two daemons")
    root = Path(host.root)
    volumes = list((hosts_cloud.folder / "volumes").iterdir())
    assert root.exists()
    assert volumes
    answer = hosts_ec2.terminate_instances(InstanceIds=[instance_id])["TerminatingInstances"][0]
    assert answer["CurrentState"]["Name"] == "shutting-down"
    wait_for(hosts_ec2, instance_id, "terminated")
    assert not root.exists()
    assert list((hosts_cloud.folder / "volumes").iterdir()) == []
    assert marked(INSTANCE_MARK, instance_id) == []
    assert not any(psutil.pid_exists(pid) for pid in sleepers)
    assert reason(hosts_ec2, instance_id) == "Client.UserInitiatedShutdown"
    assert hosts_ec2.terminate_instances(InstanceIds=[instance_id])["TerminatingInstances"]


def _sleepers(init: int, count: int) -> list[int]:
    below = [child for child in psutil.Process(init).children(recursive=True) if child.name() == "sleep"]
    return [child.pid for child in below] if len(below) == count else []


def test_a_machine_that_dies_is_terminated_by_the_server(hosts_cloud: LocalCloud, hosts_ec2: Any) -> None:
    instance_id = boot(hosts_ec2)
    hosts_cloud.connect(instance_id).run("env -i setsid sleep 300 >/dev/null 2>&1 &", timeout_seconds=5)
    init = init_pid(hosts_cloud, instance_id)
    sleeper = until(lambda: _sleepers(init, 1), "a daemon")[0]
    os.kill(init, signal.SIGKILL)
    wait_for(hosts_ec2, instance_id, "terminated")
    assert reason(hosts_ec2, instance_id) == "Server.InternalError"
    assert not psutil.pid_exists(sleeper)
    assert not (hosts_cloud.folder / "hosts" / instance_id).exists()


def test_shutdown_from_inside_stops_or_terminates_as_the_launch_said(
    hosts_cloud: LocalCloud, hosts_ec2: Any
) -> None:
    stopping = boot(hosts_ec2)
    ending = boot(hosts_ec2, InstanceInitiatedShutdownBehavior="terminate")
    for instance_id in (stopping, ending):
        with suppress(HostUnreachable):  # the machine may go before the command's answer
            hosts_cloud.connect(instance_id).run("sudo shutdown -h now", timeout_seconds=5, check=False)
    wait_for(hosts_ec2, ending, "terminated")
    wait_for(hosts_ec2, stopping, "stopped")
    assert reason(hosts_ec2, ending) == "Client.InstanceInitiatedShutdown"
    assert reason(hosts_ec2, stopping) == "Client.InstanceInitiatedShutdown"


def test_a_stopped_instance_keeps_its_files_and_private_address_and_starts_again(
    hosts_cloud: LocalCloud, hosts_ec2: Any
) -> None:
    instance_id = boot(hosts_ec2)
    before = describe(hosts_ec2, instance_id)
    hosts_cloud.connect(instance_id).run(
        "echo kept > $HOME/file; sleep 300 >/dev/null 2>&1 &", timeout_seconds=5
    )
    hosts_ec2.stop_instances(InstanceIds=[instance_id])
    wait_for(hosts_ec2, instance_id, "stopped")
    assert "PublicIpAddress" not in describe(hosts_ec2, instance_id)
    assert marked(INSTANCE_MARK, instance_id) == []
    hosts_ec2.start_instances(InstanceIds=[instance_id])
    wait_for(hosts_ec2, instance_id, "running")
    after = describe(hosts_ec2, instance_id)
    assert after["PrivateIpAddress"] == before["PrivateIpAddress"]
    assert after["PublicIpAddress"] != before["PublicIpAddress"]
    host = hosts_cloud.connect(instance_id)
    assert host.run("cat $HOME/file", timeout_seconds=5).stdout == "kept\n"


def test_a_terminated_instance_cannot_be_started(ec2: Any) -> None:
    instance_id = str(machine(ec2)["InstanceId"])
    ec2.terminate_instances(InstanceIds=[instance_id])
    assert code_of(lambda: ec2.start_instances(InstanceIds=[instance_id])) == "IncorrectInstanceState"


def test_a_reboot_ends_what_ran_and_keeps_the_machine(hosts_cloud: LocalCloud, hosts_ec2: Any) -> None:
    instance_id = boot(hosts_ec2)
    hosts_cloud.connect(instance_id).run("setsid sleep 300 >/dev/null 2>&1 &", timeout_seconds=5)
    init = init_pid(hosts_cloud, instance_id)
    sleeper = until(lambda: _sleepers(init, 1), "a daemon")[0]
    hosts_ec2.reboot_instances(InstanceIds=[instance_id])
    until(lambda: not psutil.pid_exists(sleeper), "the daemon to end")
    host = hosts_cloud.connect(instance_id)
    until(
        lambda: host.run("echo back", timeout_seconds=5, check=False).stdout == "back\n",
        "the machine to be back",
    )
    assert init_pid(hosts_cloud, instance_id) == init


def test_an_interruption_is_announced_inside_and_then_happens(
    hosts_cloud: LocalCloud, hosts_ec2: Any
) -> None:
    instance_id = boot(hosts_ec2, InstanceMarketOptions={"MarketType": "spot"})
    host = hosts_cloud.connect(instance_id)
    path = "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data/spot/instance-action"
    ask = f"curl -s -o - -w '%{{http_code}}' {path}"
    assert host.run(ask, timeout_seconds=5).stdout.endswith("404")
    when = hosts_cloud.control("POST", f"interrupt/{instance_id}", {"notice_seconds": 1})["time"]
    notice = host.run(ask, timeout_seconds=5).stdout
    assert notice == f'{{"action": "terminate", "time": "{when}"}}200'
    wait_for(hosts_ec2, instance_id, "terminated")
    assert reason(hosts_ec2, instance_id) == "Server.SpotInstanceTermination"
    request = describe(hosts_ec2, instance_id)["SpotInstanceRequestId"]
    answer = hosts_ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[request])
    assert answer["SpotInstanceRequests"][0]["Status"]["Code"] == "instance-terminated-no-capacity"


def test_time_can_jump_over_the_notice(cloud: LocalCloud, ec2: Any) -> None:
    instance_id = str(machine(ec2, InstanceMarketOptions={"MarketType": "spot"})["InstanceId"])
    cloud.control("POST", f"interrupt/{instance_id}", {"notice_seconds": 3600})
    assert state(ec2, instance_id) in ("pending", "running")
    cloud.control("POST", "clock", {"advance_seconds": 3600})
    wait_for(ec2, instance_id, "terminated")


def test_booting_takes_as_long_as_the_scenario_says(cloud: LocalCloud, ec2: Any) -> None:
    cloud.control("POST", "scenario", {"boot_seconds": 600})
    instance_id = str(machine(ec2)["InstanceId"])
    cloud.control("POST", "clock", {"advance_seconds": 500})
    assert state(ec2, instance_id) == "pending"
    cloud.control("POST", "clock", {"advance_seconds": 100})
    wait_for(ec2, instance_id, "running")


def test_an_address_has_one_owner_however_many_had_it_before(cloud: LocalCloud, ec2: Any) -> None:
    for _ in range(3):
        made = [str(one["InstanceId"]) for one in machines(ec2, 4)]
        ec2.terminate_instances(InstanceIds=made)
        wait_for(ec2, made[-1], "terminated")
        cloud.control("POST", "clock", {"advance_seconds": 7200})
    addresses = [one["PrivateIpAddress"] for one in (*machines(ec2, 8), *machines(ec2, 8))]
    assert len(set(addresses)) == 16


def test_only_a_spot_instance_that_runs_can_be_interrupted(cloud: LocalCloud, ec2: Any) -> None:
    instance_id = str(machine(ec2)["InstanceId"])
    with pytest.raises(SetupError, match="no spot instance that runs"):
        cloud.control("POST", f"interrupt/{instance_id}")


def test_terminated_instances_are_forgotten_after_an_hour_of_simulated_time(
    cloud: LocalCloud, ec2: Any
) -> None:
    instance_id = str(machine(ec2)["InstanceId"])
    ec2.terminate_instances(InstanceIds=[instance_id])
    wait_for(ec2, instance_id, "terminated")

    def forgotten() -> bool:
        cloud.control("POST", "clock", {"advance_seconds": 3601})
        return code_of(lambda: state(ec2, instance_id)) == "InvalidInstanceID.NotFound"

    until(forgotten, "the instance to be forgotten")


def test_what_is_terminated_while_it_boots_leaves_nothing(hosts_cloud: LocalCloud, hosts_ec2: Any) -> None:
    made = [str(one["InstanceId"]) for one in machines(hosts_ec2, 6)]
    hosts_ec2.terminate_instances(InstanceIds=made)
    for instance_id in made:
        wait_for(hosts_ec2, instance_id, "terminated")
        assert marked(INSTANCE_MARK, instance_id) == []
        assert not (hosts_cloud.folder / "hosts" / instance_id).exists()


def test_capacity_is_given_back_once_however_an_instance_ends(cloud: LocalCloud, ec2: Any) -> None:
    zone = {"Placement": {"AvailabilityZone": "us-east-1a"}}
    cloud.control("POST", "capacity", [{"instance_type": "m6i.large", "machines": 2}])
    both = [str(one["InstanceId"]) for one in machines(ec2, 2, **zone)]
    ec2.stop_instances(InstanceIds=both[:1])
    ec2.terminate_instances(InstanceIds=both[:1])
    wait_for(ec2, both[0], "terminated")
    machine(ec2, **zone)
    assert code_of(lambda: machine(ec2, **zone)) == "InsufficientInstanceCapacity"


def test_a_stopped_instance_needs_capacity_to_start(cloud: LocalCloud, ec2: Any) -> None:
    instance_id = str(machine(ec2)["InstanceId"])
    ec2.stop_instances(InstanceIds=[instance_id])
    wait_for(ec2, instance_id, "stopped")
    cloud.control("POST", "capacity", [{"machines": 0}])
    start = lambda: ec2.start_instances(InstanceIds=[instance_id])  # noqa: E731
    assert code_of(start) == "InsufficientInstanceCapacity"
    cloud.control("POST", "capacity", [])
    assert code_of(start) == ""
    wait_for(ec2, instance_id, "running")
