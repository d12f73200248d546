"""ProcessHost: commands, files and first boot inside an instance that is a folder of this machine."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from infra.errors import CommandFailed, CommandTimedOut, HostError, HostRefused, HostUnreachable
from infra.local import LocalCloud
from infra.local.hosts.client import ProcessHost
from tests.infra.local.requests import describe, machine, state, until, wait_for
from tests.infra.results import check_odd_results, make_odd_results

SCRIPT = "#!/bin/sh\necho booted $(hostname) > $SPARKNET_ROOT/var/log/mine\n"


@pytest.fixture(scope="module")
def instance_id(hosts_cloud: LocalCloud, hosts_client: Any) -> Iterator[str]:
    made = machine(
        hosts_client,
        InstanceType="g6.xlarge",
        UserData=SCRIPT,
        MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "role", "Value": "worker"}]}],
    )
    wait_for(hosts_client, made["InstanceId"], "running")
    yield made["InstanceId"]
    hosts_client.terminate_instances(InstanceIds=[made["InstanceId"]])


@pytest.fixture
def host(hosts_cloud: LocalCloud, instance_id: str) -> ProcessHost:
    return hosts_cloud.connect(instance_id)


def test_a_command_runs_inside_the_host(host: ProcessHost) -> None:
    said = host.run("echo $HOME; echo $SPARKNET_ROOT; pwd; command -v sudo; echo oops >&2", timeout_seconds=5)
    root = str(host.root)
    assert said.stdout.splitlines() == [
        f"{root}/home/ubuntu",
        root,
        f"{root}/home/ubuntu",
        f"{root}/bin/sudo",
    ]
    assert (said.stderr, said.exit_status) == ("oops\n", 0)


def test_nothing_of_the_launching_shell_reaches_it(
    host: ProcessHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = host.run("env | cut -d= -f1", timeout_seconds=5).stdout.split()
    assert not [
        name for name in names if name.startswith(("AWS_ACCESS", "AWS_SECRET", "PYTEST", "VIRTUAL_ENV"))
    ]
    assert host.run("echo $MINE", env={"MINE": "given"}, timeout_seconds=5).stdout == "given\n"


def test_a_failing_command_raises_with_the_end_of_its_output(host: ProcessHost) -> None:
    with pytest.raises(CommandFailed, match="status 3") as failed:
        host.run("echo first; echo last >&2; exit 3", timeout_seconds=5)
    assert "last" in str(failed.value)
    assert host.run("exit 3", timeout_seconds=5, check=False).exit_status == 3
    assert host.run("kill -9 $$", timeout_seconds=5, check=False).exit_status == 137


def test_a_command_is_stopped_at_its_deadline_with_all_it_started(host: ProcessHost) -> None:
    began = time.monotonic()
    with pytest.raises(CommandTimedOut, match=r"0\.5 s") as late:
        host.run("echo begun; sleep 300 & echo $! > $HOME/pid; wait", timeout_seconds=0.5)
    assert time.monotonic() - began < 4
    assert "begun" in str(late.value)
    gone = host.run("kill -0 $(cat $HOME/pid)", timeout_seconds=5, check=False)
    assert gone.exit_status != 0


def test_lines_arrive_as_they_are_written(host: ProcessHost) -> None:
    arrived: list[tuple[str, float]] = []
    host.run(
        "echo one; sleep 0.4; printf 'two\\nthree'",
        timeout_seconds=5,
        on_line=lambda line: arrived.append((line, time.monotonic())),
    )
    assert [line for line, _ in arrived] == ["one", "two", "three"]
    assert arrived[1][1] - arrived[0][1] > 0.2


def test_a_daemon_does_not_hold_the_command_that_started_it(host: ProcessHost) -> None:
    began = time.monotonic()
    host.run("sleep 60 & echo $! > $HOME/daemon", timeout_seconds=10)
    assert time.monotonic() - began < 3
    assert (
        host.run("kill -0 $(cat $HOME/daemon) && kill $(cat $HOME/daemon)", timeout_seconds=5).exit_status
        == 0
    )


def test_input_and_output_may_be_large(host: ProcessHost) -> None:
    text = "x" * 79 + "\n"
    assert host.run("cat", stdin=text * 20_000, timeout_seconds=20).stdout == text * 20_000
    assert host.run("true", stdin=text * 20_000, timeout_seconds=20).exit_status == 0


def test_files_go_in_and_out_with_their_modes(host: ProcessHost, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (folder / "run.sh").chmod(0o755)
    target = host.root / "opt/sparknet/scripts"
    host.put(folder, target)
    assert host.run(str(target / "run.sh"), timeout_seconds=5).stdout == "ran\n"
    host.put(folder / "run.sh", host.root / "new/place/go")
    host.get(host.root / "new/place/go", tmp_path / "back/go")
    assert (tmp_path / "back/go").read_text() == (folder / "run.sh").read_text()
    host.get(target, tmp_path / "whole")
    assert (tmp_path / "whole/run.sh").stat().st_mode & 0o777 == 0o755


def test_paths_outside_the_host_are_refused(host: ProcessHost, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="outside the host"):
        host.put(tmp_path / "file", PurePosixPath("/etc/sparknet-test"))
    with pytest.raises(HostError, match="outside the host"):
        host.get(host.root / "../../../endpoint.json", tmp_path / "stolen")
    with pytest.raises(HostError, match=r"cannot copy .*: No such file"):
        host.put(tmp_path / "none", host.root / "none")
    with pytest.raises(HostError, match="there is no"):
        host.get(host.root / "missing", tmp_path / "missing")


def test_what_is_no_file_is_left_out_by_name_and_the_rest_is_copied(
    host: ProcessHost, tmp_path: Path
) -> None:
    wanted = make_odd_results(Path(host.root) / "tmp/a job/output")
    left_out = host.get(host.root / "tmp/a job/output", tmp_path / "results")
    assert {one.path: one.kind for one in left_out} == wanted
    check_odd_results(tmp_path / "results")


def test_the_share_of_the_machine_is_told_and_nproc_agrees(host: ProcessHost) -> None:
    said = host.run(
        "nproc; echo $SPARKNET_HOST_CPUS $SPARKNET_HOST_MEMORY_MIB", timeout_seconds=5
    ).stdout.split()
    assert int(said[0]) == int(said[1]) >= 1
    assert int(said[2]) > 100


def test_user_data_ran_once_at_the_first_boot_and_is_kept(
    hosts_cloud: LocalCloud, hosts_client: Any, host: ProcessHost, instance_id: str
) -> None:
    read = "cat $SPARKNET_ROOT/var/log/mine $SPARKNET_ROOT/var/lib/cloud/instance/user-data.txt"
    wanted = "booted ip-" + describe(hosts_client, instance_id)["PrivateIpAddress"].replace(".", "-")
    said = until(lambda: _booted(host, read), "the user data to run")
    assert said == f"{wanted}\n{SCRIPT}"


def _booted(host: ProcessHost, read: str) -> str:
    said = host.run(read, timeout_seconds=5, check=False).stdout
    return said if said.startswith("booted") else ""


def test_metadata_needs_a_token_and_knows_the_instance(host: ProcessHost, instance_id: str) -> None:
    base = "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest"
    assert (
        host.run(f"curl -s -o /dev/null -w '%{{http_code}}' {base}/meta-data/", timeout_seconds=5).stdout
        == "401"
    )
    token = f'$(curl -s -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" {base}/api/token)'

    def ask(path: str) -> str:
        return host.run(
            f'curl -s -H "X-aws-ec2-metadata-token: {token}" {base}/{path}', timeout_seconds=5
        ).stdout

    assert ask("meta-data/instance-id") == instance_id
    assert ask("meta-data/tags/instance/role") == "worker"
    assert ask("meta-data/placement/availability-zone").startswith("us-east-1")
    assert ask("user-data") == SCRIPT
    assert "spot/" not in ask("meta-data/").splitlines()


def test_the_environment_is_the_launching_machines(host: ProcessHost) -> None:
    said = host.run(
        "$SPARKNET_ROOT/opt/sparknet/venv/bin/python -c 'import psutil; print(psutil.__name__)'",
        timeout_seconds=20,
    )
    assert said.stdout == "psutil\n"


def test_daemons_of_two_hosts_may_use_one_port(
    hosts_cloud: LocalCloud, hosts_ec2: Any, host: ProcessHost, instance_id: str
) -> None:
    other_id = machine(hosts_ec2)["InstanceId"]
    wait_for(hosts_ec2, other_id, "running")
    other = hosts_cloud.connect(other_id)
    listen = (
        "import os,socket; "
        "s=socket.create_server((os.environ['SPARKNET_PRIVATE_ADDRESS'], 7077)); print(s.getsockname()[0])"
    )
    program = f'$SPARKNET_ROOT/opt/sparknet/venv/bin/python -c "{listen}; import time; time.sleep(%s)"'
    host.run(f"{program % 5} > $HOME/address 2>&1 &", timeout_seconds=5)
    assert other.run(program % 0, timeout_seconds=10).stdout.startswith("127.")


def test_a_host_that_boots_refuses_and_one_that_is_gone_cannot_be_reached(
    hosts_cloud: LocalCloud, hosts_ec2: Any
) -> None:
    made = machine(hosts_ec2)["InstanceId"]
    if state(hosts_ec2, made) == "pending":
        with pytest.raises(HostRefused, match="still booting"):
            hosts_cloud.connect(made)
    wait_for(hosts_ec2, made, "running")
    host = hosts_cloud.connect(made)
    hosts_ec2.terminate_instances(InstanceIds=[made])
    wait_for(hosts_ec2, made, "terminated")
    with pytest.raises(HostUnreachable, match="gone"):
        host.run("true", timeout_seconds=5)
    with pytest.raises(HostUnreachable, match="terminated"):
        hosts_cloud.connect(made)


def test_a_machine_that_dies_under_a_command_is_said_to_be_gone(
    hosts_cloud: LocalCloud, hosts_ec2: Any
) -> None:
    made = machine(hosts_ec2)["InstanceId"]
    wait_for(hosts_ec2, made, "running")
    host = hosts_cloud.connect(made)
    with pytest.raises(HostUnreachable, match="went away"):
        host.run("kill -9 $(cat $SPARKNET_ROOT/run/init.pid); sleep 60", timeout_seconds=30)


def test_cloud_config_is_handed_over_as_it_is(hosts_cloud: LocalCloud, hosts_ec2: Any) -> None:
    config = "#cloud-config\nruncmd:\n  - touch /never\n"
    made = machine(hosts_ec2, UserData=config)["InstanceId"]
    wait_for(hosts_ec2, made, "running")
    stored = hosts_cloud.folder / "hosts" / made / "var/lib/cloud/instance/user-data.txt"
    assert stored.read_text() == config
    attribute = hosts_ec2.describe_instance_attribute(InstanceId=made, Attribute="userData")["UserData"][
        "Value"
    ]
    assert base64.b64decode(attribute).decode() == config


def test_the_console_shows_what_the_first_boot_said(hosts_cloud: LocalCloud, hosts_ec2: Any) -> None:
    made = machine(hosts_ec2, UserData="#!/bin/sh\necho said at boot\n")["InstanceId"]
    wait_for(hosts_ec2, made, "running")
    until(
        lambda: "said at boot" in hosts_ec2.get_console_output(InstanceId=made).get("Output", ""),
        "the console",
    )
