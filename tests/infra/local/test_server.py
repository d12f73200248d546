"""The server process: found again, started once, ended whole, whatever happened to it or to its files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.errors import DeadlineExceeded, SetupError, UsageError
from infra.local import LocalCloud, clean, open_cloud
from infra.local.home import Home
from infra.local.hosts.processes import HOME_MARK, marked
from tests.infra.local.conftest import client
from tests.infra.local.requests import machine, until, wait_for


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    clean(tmp_path)


def opened(home: Path, **options: object) -> LocalCloud:
    cloud = open_cloud(home, **options)  # type: ignore[arg-type]
    assert cloud is not None
    return cloud


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_next_command_finds_the_server_that_an_earlier_process_started(home: Path) -> None:
    assert open_cloud(home, start=False) is None
    program = (
        "from pathlib import Path; from infra.local import open_cloud; "
        f"print(open_cloud(Path({str(home)!r})).pid)"
    )
    root = Path(__file__).parents[3]
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root, timeout=60
    )
    found = opened(home, start=False)
    assert found.pid == int(said.stdout)
    assert os.getsid(found.pid) != os.getsid(0)
    assert found.endpoint_url.startswith("http://127.0.0.1:")
    mode = Home.find(home).endpoint_file.stat().st_mode & 0o777
    assert mode == 0o600


@pytest.mark.slow
def test_two_that_start_at_once_get_one_server_and_a_dead_one_leaves_nothing(home: Path) -> None:
    found: list[LocalCloud] = []
    starters = [threading.Thread(target=lambda: found.append(opened(home))) for _ in range(3)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(60)
    assert len({cloud.pid for cloud in found}) == 1
    first = found[0]
    ec2 = client(first)
    instance_id = machine(ec2)["InstanceId"]
    wait_for(ec2, instance_id, "running")
    first.connect(instance_id).run("setsid sleep 300 >/dev/null 2>&1 &", timeout_seconds=5)
    processes = until(lambda: marked(HOME_MARK, str(first.folder)), "processes of the host")
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: all(ended(process.pid) for process in processes), "the host to end with its server")
    assert open_cloud(home, start=False) is None
    second = opened(home)
    assert second.pid != first.pid
    assert not (second.folder / "hosts" / instance_id).exists()
    again = client(second)
    assert again.describe_instances()["Reservations"] == []
    again.close()
    ec2.close()


def test_stopping_leaves_no_process_no_host_no_state(home: Path) -> None:
    cloud = opened(home)
    ec2 = client(cloud)
    instance_id = machine(ec2)["InstanceId"]
    wait_for(ec2, instance_id, "running")
    ec2.close()
    cloud.stop()
    assert ended(cloud.pid)
    assert marked(HOME_MARK, str(cloud.folder)) == []
    assert {path.name for path in cloud.folder.iterdir()} == {"lock", "server.log"}
    cloud.stop()
    clean(home)
    assert not cloud.folder.exists()


def test_a_server_whose_state_file_is_removed_ends(home: Path) -> None:
    cloud = opened(home, scenario=scenario(home, {"hosts": "none"}))
    shutil.rmtree(cloud.folder)
    until(lambda: ended(cloud.pid), "the server to end")


def test_a_state_file_of_another_process_is_stale(home: Path) -> None:
    place = Home.find(home)
    place.folder.mkdir(parents=True)
    lie = {"pid": os.getpid(), "port": 1, "started": 0.0}
    lie |= {"access_key_id": "x", "region": "us-east-1", "runtime": "/tmp/x"}
    place.endpoint_file.write_text(json.dumps(lie))
    assert open_cloud(home, start=False) is None
    place.endpoint_file.write_text("not json")
    assert open_cloud(home, start=False) is None


def test_a_busy_port_and_a_bad_scenario_are_sentences(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is taken"):
            opened(home, port=port)
    with pytest.raises(UsageError, match="no 'host'; it has hosts"):
        opened(home, scenario=scenario(home, {"host": "none"}))
    assert open_cloud(home, start=False) is None


def test_a_server_that_cannot_start_shows_the_end_of_its_log(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = home / "broken"
    broken.mkdir()
    (broken / "moto.py").write_text("raise RuntimeError('no moto today')")
    paths = {"PYTHONPATH": f"{broken}:{Path(__file__).parents[3]}"}
    monkeypatch.setattr("infra.local.daemon._environment", lambda: {**os.environ, **paths})
    with pytest.raises(SetupError, match="no moto today"):
        opened(home)


def test_a_lock_that_is_held_too_long_is_said(home: Path) -> None:
    place = Home.find(home)
    with (
        place.locked(timeout_seconds=1),
        pytest.raises(DeadlineExceeded, match="another process"),
        place.locked(timeout_seconds=0.1),
    ):
        pass


def scenario(home: Path, data: dict[str, object]) -> Path:
    path = home / "scenario.json"
    path.write_text(json.dumps(data))
    return path


def test_a_home_that_cannot_be_written_is_said(home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(SetupError, match=r"cannot keep its files in .*file/local: Not a directory"):
        open_cloud(home / "file")


def test_a_running_server_takes_no_other_scenario_or_port(home: Path) -> None:
    first = opened(home, scenario=scenario(home, {"hosts": "none"}))
    assert opened(home).pid == first.pid
    with pytest.raises(UsageError, match="runs already"):
        opened(home, scenario=home / "scenario.json")
    with pytest.raises(UsageError, match="before giving it another scenario or port"):
        opened(home, port=1)
