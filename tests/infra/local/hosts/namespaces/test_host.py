"""A namespace host over real ssh: its name, its user, its files, its processes, and what it cannot do."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from infra.errors import HostRejectedLogin
from infra.node.ssh import SSHHost
from tests.infra.local.hosts.namespaces.rig import Rig, said, status
from tests.infra.local.requests import describe, until

pytestmark = pytest.mark.rig


@pytest.fixture(scope="module")
def host(rig: Rig, pair: list[str]) -> SSHHost:
    return rig.host(pair[0])


def test_its_name_and_address_are_those_that_ec2_reports(rig: Rig, pair: list[str], host: SSHHost) -> None:
    address = describe(rig.ec2, pair[0])["PrivateIpAddress"]
    assert said(host, "hostname") == f"ip-{address.replace('.', '-')}"
    assert said(host, "ip -4 -brief address show eth0 | awk '{print $3}'").partition("/")[0] == address
    assert said(host, "getent hosts $(hostname) | awk '{print $1}'") == address


def test_its_user_becomes_root_without_a_password(host: SSHHost) -> None:
    assert said(host, "id -un; id -u; sudo -n id -u").split() == ["ubuntu", "1000", "0"]


def test_another_key_or_user_is_rejected(rig: Rig, pair: list[str], tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    for stranger in (rig.host(pair[0], key=other), rig.host(pair[0], user="root")):
        with pytest.raises(HostRejectedLogin):
            stranger.run("true", timeout_seconds=10)


def test_nothing_of_this_machines_own_folders_is_seen(host: SSHHost, rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    here = [str(tmp_path / "secret"), str(rig.folder), str(Path(__file__)), str(Path.home() / ".bashrc")]
    assert [path for path in here if status(host, f"sudo test -e {path}") == 0] == []
    assert said(host, "ls /home; sudo find /run /tmp -type s") == "ubuntu"


def test_what_is_written_stays_inside(host: SSHHost) -> None:
    said(host, "sudo touch /usr/bin/mine /etc/mine && echo changed | sudo tee /etc/motd")
    assert not Path("/usr/bin/mine").exists()
    assert not Path("/etc/mine").exists()
    assert "changed" not in (Path("/etc/motd").read_text() if Path("/etc/motd").exists() else "")


def test_only_its_own_processes_are_seen(host: SSHHost) -> None:
    listed = said(host, "ps -eo pid=,args=").splitlines()
    assert "init.py" in listed[0]
    assert listed[0].split()[0] == "1"
    assert not [line for line in listed if "pytest" in line]


def test_it_has_the_environment_of_the_launching_machine_read_only(host: SSHHost) -> None:
    python = "/opt/sparknet/venv/bin/python"
    assert said(host, f"{python} -c 'import sys, click; print(sys.prefix)'") == "/opt/sparknet/venv"
    assert status(host, "sudo touch /opt/sparknet/venv/mine") != 0


def test_its_mounts_are_its_own(host: SSHHost) -> None:
    kinds = dict(line.split()[1:3] for line in said(host, "cat /proc/mounts").splitlines())
    assert kinds["/"] == "overlay"
    assert {kinds[path] for path in ("/dev", "/run", "/dev/shm")} == {"tmpfs"}
    assert not [path for path in kinds if path.startswith(("/var", "/home", "/mnt"))]


def test_its_root_cannot_touch_the_clock_the_kernel_or_other_disks(host: SSHHost) -> None:
    assert status(host, "sudo date -s 2001-01-01") != 0
    assert status(host, "sudo sysctl -w kernel.hostname=mine") != 0
    assert status(host, "sudo mknod /tmp/disk b 254 0") != 0
    assert said(host, "sudo sysctl -n -w net.core.somaxconn=999") == "999"


def test_its_uptime_is_its_own(host: SSHHost) -> None:
    up, machine = float(said(host, "cut -d' ' -f1 /proc/uptime")), Path("/proc/uptime").read_text().split()[0]
    assert up < float(machine)


def test_cloud_config_was_carried_out_at_the_first_boot(host: SSHHost) -> None:
    said(host, "cloud-init status --wait")
    assert said(host, "cat /etc/greeting; stat -c '%a %U' /etc/greeting").split() == ["hello640", "ubuntu"]
    assert said(host, "wc -l </var/log/first-boot") == "1"


def test_a_unit_runs_as_its_user_and_again_after_its_death(host: SSHHost) -> None:
    unit = "[Service]\nUser=ubuntu\nExecStart=/bin/sleep 314\nRestart=on-failure\nRestartSec=0.1\n"
    unit += "[Install]\nWantedBy=multi-user.target\n"
    host.run("sudo tee /etc/systemd/system/nap.service", stdin=unit, timeout_seconds=10)
    said(host, "sudo systemctl daemon-reload && sudo systemctl enable --now nap")
    first = until(lambda: processes(host, "sleep 314"), "the unit to run")
    assert said(host, f"ps -o user= -p {first[0]}; systemctl is-active nap").split() == ["ubuntu", "active"]
    said(host, f"sudo kill -9 {first[0]}")
    again = until(
        lambda: [pid for pid in processes(host, "sleep 314") if pid not in first], "it to run again"
    )
    said(host, "sudo systemctl disable --now nap")
    assert processes(host, "sleep 314") == []
    assert len(again) == 1


def processes(host: SSHHost, command: str) -> list[str]:
    lines = [line.split(None, 1) for line in said(host, "ps -eo pid=,args=").splitlines()]
    return [pid for pid, args in lines if args.endswith(command)]


def test_sshd_comes_back_if_it_dies(rig: Rig, pair: list[str]) -> None:
    address = describe(rig.ec2, pair[1])["PublicIpAddress"]
    host = rig.host(pair[1])
    host.run("sudo kill $(pgrep -o sshd)", timeout_seconds=10)

    def answers() -> bool:
        try:
            with socket.create_connection((address, 22), 1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    until(answers, "sshd to answer again")
