"""Hosts over ssh: commands, files, deadlines, and a name for each way in which a login can fail."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from infra.errors import (
    CommandFailed,
    CommandTimedOut,
    HostError,
    HostKeyChanged,
    HostRefused,
    HostRejectedLogin,
    HostsFailed,
    HostUnreachable,
)
from infra.node import login
from infra.node.host import on_all, read_text, write_text
from infra.node.ssh import SSHHost
from tests.infra.hosts import ScriptedHost
from tests.infra.results import check_odd_results, make_odd_results
from tests.infra.sshd import Server


def new_key(file: Path) -> paramiko.Ed25519Key:
    file.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
    )
    file.chmod(0o600)
    return paramiko.Ed25519Key(filename=str(file))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(new_key(tmp_path / "user.pem"), new_key(tmp_path / "host.pem")) as listening:
        yield listening


@pytest.fixture
def host(server: Server, tmp_path: Path) -> Iterator[SSHHost]:
    with closing(to(server.port, tmp_path)) as connection:
        yield connection


def to(port: int, folder: Path, *, user: str = "ubuntu", key: str = "user.pem") -> SSHHost:
    return SSHHost(
        "worker-1", "127.0.0.1", port=port, user=user, key=folder / key, known_hosts=folder / "known/cluster"
    )


def test_a_command_gives_its_status_and_both_its_outputs(host: SSHHost) -> None:
    result = host.run("echo out; echo err >&2; exit 3", timeout_seconds=20, check=False)
    assert (result.exit_status, result.stdout, result.stderr) == (3, "out\n", "err\n")


def test_a_failed_command_is_named_with_the_end_of_its_output(host: SSHHost) -> None:
    with pytest.raises(CommandFailed, match="worker-1: `echo wrong; false` ended with status 1") as failed:
        host.run("echo wrong; false", timeout_seconds=20)
    assert "    wrong" in str(failed.value)


def test_lines_come_while_the_command_runs(host: SSHHost) -> None:
    told: list[tuple[str, float]] = []
    host.run(
        "echo one; sleep 0.5; printf two",
        timeout_seconds=20,
        on_line=lambda line: told.append((line, time.monotonic())),
    )
    assert [line for line, _ in told] == ["one", "two"]
    assert told[1][1] - told[0][1] > 0.3


def test_environment_and_input_arrive_as_they_are(host: SSHHost) -> None:
    text = 'it\'s $HOME\nand "more"\n' * 2000
    result = host.run('cat; printf %s "$ODD"', env={"ODD": "a 'b' $c"}, stdin=text, timeout_seconds=20)
    assert result.stdout == text + "a 'b' $c"


def test_a_command_past_its_deadline_is_stopped_on_the_node(host: SSHHost, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(CommandTimedOut, match="still running after 1 s"):
        host.run(f"echo begun; sleep 60; touch {tmp_path}/survived", timeout_seconds=1)
    assert time.monotonic() - began < 10
    assert not (tmp_path / "survived").exists()


def test_one_connection_serves_all_commands(host: SSHHost, server: Server) -> None:
    for _ in range(5):
        host.run("true", timeout_seconds=20)
    assert server.connections == 1


def test_a_lost_connection_is_named_and_the_next_command_makes_a_new_one(
    host: SSHHost, server: Server
) -> None:
    threading.Timer(0.5, server.drop).start()
    with pytest.raises(HostUnreachable, match="connection was lost"):
        host.run("sleep 20", timeout_seconds=30)
    assert host.run("echo back", timeout_seconds=20).stdout == "back\n"


def test_files_and_folders_travel_both_ways(host: SSHHost, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep/script.sh").write_text("#!/bin/sh\n")
    (source / "deep/script.sh").chmod(0o755)
    node = PurePosixPath(tmp_path / "node")
    host.put(source, node / "copy")
    host.put(source / "deep/script.sh", node / "one.sh")
    host.get(node / "copy", tmp_path / "back")
    assert (tmp_path / "back/deep/script.sh").read_text() == "#!/bin/sh\n"
    assert Path(node / "one.sh").stat().st_mode & 0o777 == 0o755
    with pytest.raises(CommandFailed, match="nothing-there"):
        host.get(node / "nothing-there", tmp_path / "no")


def test_text_is_written_whole_and_for_its_owner_alone(host: SSHHost, tmp_path: Path) -> None:
    target = PurePosixPath(tmp_path / "conf/secret")
    write_text(host, target, "s3cret", mode=0o600)
    assert Path(target).stat().st_mode & 0o777 == 0o600
    assert read_text(host, target) == "s3cret"


@pytest.mark.parametrize(("user", "key"), [("root", "user.pem"), ("ubuntu", "other.pem")])
def test_a_wrong_user_or_key_is_told_apart(server: Server, tmp_path: Path, user: str, key: str) -> None:
    new_key(tmp_path / "other.pem")
    with (
        closing(to(server.port, tmp_path, user=user, key=key)) as host,
        pytest.raises(HostRejectedLogin, match=f"does not accept user {user}"),
    ):
        host.run("true", timeout_seconds=20)


def test_nobody_listening_is_told_apart(tmp_path: Path) -> None:
    new_key(tmp_path / "user.pem")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with closing(to(port, tmp_path)) as host, pytest.raises(HostRefused, match="sshd is not up"):
        host.run("true", timeout_seconds=20)


def test_silence_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "CONNECT_SECONDS", 0.5)
    new_key(tmp_path / "user.pem")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = to(silent.getsockname()[1], tmp_path)
        with closing(host), pytest.raises((HostRefused, HostUnreachable)):
            host.run("true", timeout_seconds=20)


def test_a_server_that_hangs_up_after_its_greeting_is_not_ready_yet(tmp_path: Path) -> None:
    new_key(tmp_path / "user.pem")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet_and_hang_up() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"SSH-2.0-going_down\r\n")
                connection.recv(64)

        threading.Thread(target=greet_and_hang_up, daemon=True).start()
        with (
            closing(to(listening.getsockname()[1], tmp_path)) as host,
            pytest.raises(HostRefused, match="does not speak ssh"),
        ):
            host.run("true", timeout_seconds=5)


def test_another_machine_at_the_same_address_is_not_talked_to(server: Server, tmp_path: Path) -> None:
    with closing(to(server.port, tmp_path)) as host:
        host.run("true", timeout_seconds=20)
    assert (tmp_path / "known/cluster").stat().st_mode & 0o777 == 0o600
    server.host_key = new_key(tmp_path / "another.pem")
    with closing(to(server.port, tmp_path)) as host, pytest.raises(HostKeyChanged, match="known/cluster"):
        host.run("true", timeout_seconds=20)


def test_every_host_is_tried_before_the_failures_are_told() -> None:
    tried = []

    def work(host: ScriptedHost) -> str:
        tried.append(host.name)
        if host.name in ("worker-2", "worker-3"):
            raise HostError(host.name, "is on fire")
        return host.name

    hosts = [ScriptedHost(f"worker-{n}") for n in range(1, 5)]
    with pytest.raises(HostsFailed) as failed:
        on_all(hosts, work, threads=2)
    assert sorted(tried) == [host.name for host in hosts]
    assert list(failed.value.failures) == ["worker-2", "worker-3"]
    assert str(failed.value) == "2 of 4 nodes failed:\nworker-2: is on fire\nworker-3: is on fire"


def test_what_all_hosts_say_is_told_once() -> None:
    def work(host: ScriptedHost) -> None:
        raise CommandFailed(host.name, f"{host.name}/40-spark.sh", 1, "Spark needs Java 17 or newer")

    with pytest.raises(HostsFailed) as failed:
        on_all([ScriptedHost("master"), ScriptedHost("worker-1")], work)
    assert str(failed.value) == (
        "2 of 2 nodes failed (master, worker-1), and all of them say:\n    Spark needs Java 17 or newer"
    )


def test_results_come_in_the_order_of_the_hosts() -> None:
    hosts = [ScriptedHost(f"worker-{n}") for n in range(50)]
    assert on_all(hosts, lambda host: host.name, threads=7) == [host.name for host in hosts]


def test_a_defect_of_ours_is_not_taken_for_a_failed_node() -> None:
    with pytest.raises(ZeroDivisionError):
        on_all([ScriptedHost()], lambda _host: 1 / 0)


def test_a_key_file_that_is_not_here_is_told_apart(server: Server, tmp_path: Path) -> None:
    with pytest.raises(HostRejectedLogin, match=r"worker-1: there is no key file .*gone.pem; copy it"):
        to(server.port, tmp_path, key="gone.pem").run("true", timeout_seconds=5)


def test_nodes_met_at_once_are_all_remembered(server: Server, tmp_path: Path) -> None:
    hosts = [to(server.port, tmp_path) for _ in range(8)]
    pool = [
        threading.Thread(target=host.run, args=("true",), kwargs={"timeout_seconds": 20}) for host in hosts
    ]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    lines = (tmp_path / "known/cluster").read_text().splitlines()
    assert lines
    assert {line.split()[0] for line in lines} == {f"[127.0.0.1]:{server.port}"}
    for host in hosts:
        host.close()


def test_what_is_no_file_is_left_out_by_name_and_the_rest_is_fetched(host: SSHHost, tmp_path: Path) -> None:
    wanted = make_odd_results(tmp_path / "a job/output")
    left_out = host.get(PurePosixPath(tmp_path / "a job/output"), tmp_path / "results")
    assert {one.path: one.kind for one in left_out} == wanted
    check_odd_results(tmp_path / "results")


def test_a_file_whose_name_looks_like_an_option_is_fetched(host: SSHHost, tmp_path: Path) -> None:
    (tmp_path / "-rf").write_text("kept")
    assert host.get(PurePosixPath(tmp_path / "-rf"), tmp_path / "results/here") == ()
    assert (tmp_path / "results/here").read_text() == "kept"
