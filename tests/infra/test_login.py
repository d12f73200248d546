"""Logins with keys of every form, past what the user's own ssh configuration and agent would make of them."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import paramiko
import pytest

from infra import private_key
from infra.errors import HostRejectedLogin, UsageError
from infra.node import login
from infra.node.ssh import SSHHost
from infra.private_key import PASSPHRASE_VARIABLE
from tests.infra.key_files import FORMS, PASSPHRASE, add_to_agent, agent_at, make
from tests.infra.sshd import Server

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is missing")
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for form in FORMS:
        make(folder, form)
        make(folder, form, PASSPHRASE)
    return folder


@pytest.fixture
def bare_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose ssh and fabric configuration would lead every connection astray."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/config").write_text(
        "Host *\n  HostName 192.0.2.1\n  Port 9\n  User nobody\n  ProxyCommand false\n"
        "  IdentityFile /nowhere\n  StrictHostKeyChecking yes\n"
    )
    (home / ".fabric.yaml").write_text("user: nobody\nport: 9\ngateway: 192.0.2.1\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


def to(
    port: int, key: Path, folder: Path, *, user: str = "ubuntu", ssh_config: Path | None = None
) -> SSHHost:
    known = folder / "known/cluster"
    return SSHHost("w1", "127.0.0.1", port=port, user=user, key=key, known_hosts=known, ssh_config=ssh_config)


@pytest.fixture(scope="module")
def host_key() -> paramiko.RSAKey:
    return paramiko.RSAKey.generate(2048)


@pytest.mark.usefixtures("bare_home")
@pytest.mark.parametrize("suffix", ["", "-encrypted"])
@pytest.mark.parametrize("form", FORMS)
def test_a_key_of_each_form_is_let_in_and_a_wrong_one_is_called_that(
    form: str,
    suffix: str,
    keys: Path,
    tmp_path: Path,
    host_key: paramiko.RSAKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, PASSPHRASE)
    file = keys / f"{form}{suffix}"
    mine = login.of_paramiko(private_key.read(file, PASSPHRASE))
    with Server(mine, host_key) as server, closing(to(server.port, file, tmp_path)) as host:
        assert host.run("echo in", timeout_seconds=20).stdout == "in\n"
    for accepted, user in ((host_key, "ubuntu"), (mine, "root")):
        with (
            Server(accepted, host_key) as server,
            closing(to(server.port, file, tmp_path / user, user=user)) as host,
            pytest.raises(HostRejectedLogin, match="wrong key or user"),
        ):
            host.run("true", timeout_seconds=20)


@pytest.mark.usefixtures("bare_home")
def test_what_is_no_key_is_said_before_anybody_is_asked(
    keys: Path, tmp_path: Path, host_key: paramiko.RSAKey
) -> None:
    with Server(host_key, host_key) as server:
        for file in (keys / "openssh-rsa.pub", keys / "pem-rsa-encrypted"):
            with closing(to(server.port, file, tmp_path)) as host, pytest.raises(UsageError):
                host.run("true", timeout_seconds=20)
        assert server.connections == 0


def test_an_agent_signs_for_an_encrypted_key_and_offers_no_other(
    bare_home: Path, keys: Path, tmp_path: Path, host_key: paramiko.RSAKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = keys / "openssh-ed25519-encrypted"
    mine = login.of_paramiko(private_key.read(file, PASSPHRASE))
    offered: list[str] = []

    class Watching(Server):
        def __init__(self) -> None:
            super().__init__(mine, host_key)

        @property
        def user_key(self) -> paramiko.PKey:
            offered.append("asked")
            return mine

        @user_key.setter
        def user_key(self, _key: paramiko.PKey) -> None: ...

    with agent_at(tmp_path / "agent") as agent:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
        for number in range(9):
            (tmp_path / str(number)).mkdir()
            add_to_agent(make(tmp_path / str(number), "openssh-ed25519"), tmp_path)
        add_to_agent(file, tmp_path)
        with Watching() as server, closing(to(server.port, file, tmp_path)) as host:
            assert host.run("echo in", timeout_seconds=20).stdout == "in\n"
    assert len(offered) <= 2  # the question whether the key will do, and its signature


def test_a_configuration_of_ssh_is_read_where_it_is_asked_for(
    bare_home: Path, keys: Path, tmp_path: Path, host_key: paramiko.RSAKey
) -> None:
    file = keys / "openssh-ed25519"
    with Server(login.of_paramiko(private_key.read(file)), host_key) as server:
        jump = bare_home / "jump"
        relay = (
            "import os, socket, sys, threading\n"
            "to = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
            "def up():\n"
            "    while data := os.read(0, 65536): to.sendall(data)\n"
            "threading.Thread(target=up, daemon=True).start()\n"
            "while data := to.recv(65536): os.write(1, data)\n"
        )
        (tmp_path / "relay.py").write_text(relay)
        jump.write_text(f"Host *\n  ProxyCommand {sys.executable} {tmp_path}/relay.py {server.port}\n")
        with closing(to(9, file, tmp_path, ssh_config=jump)) as host:  # nobody listens at port 9
            assert host.run("echo in", timeout_seconds=20).stdout == "in\n"
            assert host.login_command[1:3] == ["-F", str(jump)]


@pytest.fixture
def real_sshd(tmp_path: Path, keys: Path, bare_home: Path) -> Iterator[int]:
    """OpenSSH's own, that lets this user in with one key and hangs up after two others."""
    make(tmp_path, "openssh-ed25519")
    allowed = tmp_path / "allowed"
    allowed.write_text((keys / "openssh-ed25519.pub").read_text() + (keys / "pem-rsa.pub").read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = tmp_path / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {tmp_path}/openssh-ed25519\nAuthorizedKeysFile {allowed}\n"
        "PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nMaxAuthTries 2\n"
        "PasswordAuthentication no\n"
        "Subsystem sftp internal-sftp\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.skipif(not SSHD or getpass.getuser() != "root", reason="needs sshd and root")
@pytest.mark.parametrize("form", ["openssh-ed25519", "pem-rsa"])
def test_sshs_own_client_and_server_agree(
    form: str, real_sshd: int, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = getpass.getuser()
    with closing(to(real_sshd, keys / form, tmp_path, user=me)) as host:
        assert host.run("echo in", timeout_seconds=20).stdout == "in\n"
        with agent_at(tmp_path / "agent") as agent:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
            for number in range(9):
                (tmp_path / str(number)).mkdir()
                add_to_agent(make(tmp_path / str(number), "openssh-ed25519"), tmp_path)
            ran = subprocess.run(
                [*host.login_command, "echo in"],
                capture_output=True,
                text=True,
                timeout=30,
                stdin=subprocess.DEVNULL,
            )
    assert (ran.returncode, ran.stdout) == (0, "in\n"), ran.stderr
    stranger = to(real_sshd, keys / "openssh-rsa", tmp_path, user=me)
    with closing(stranger) as host, pytest.raises(HostRejectedLogin, match="wrong key or user"):
        host.run("true", timeout_seconds=20)
