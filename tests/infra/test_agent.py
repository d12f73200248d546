"""The agent of a node: what it does with a notice, and when it ends the node for want of jobs."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from infra.node import agent as starting
from infra.node import bootstrap
from sparknet.notice import Notice
from tests.infra.agent_parts import AGENT, MadeUpMetadata, MadeUpNode, agent
from tests.infra.hosts import ScriptedHost

ACTION, ADVICE = "spot/instance-action", "events/recommendations/rebalance"
SOON = '{"action": "terminate", "time": "2027-01-15T08:02:00Z"}'  # 120 s after the time of MadeUpMetadata


@pytest.fixture
def parts() -> Iterator[dict[str, ModuleType]]:
    with agent() as modules:
        yield modules


def test_a_notice_is_put_down_where_training_looks_for_it(
    parts: dict[str, ModuleType], tmp_path: Path
) -> None:
    node, metadata = MadeUpNode(tmp_path), MadeUpMetadata({"local-ipv4": "10.0.0.7"})
    watcher = parts["notices"].Watcher(node, metadata)
    watcher.look()
    file = tmp_path / parts["notices"].FILE
    assert not file.exists()
    metadata.said[ACTION] = SOON
    watcher.look()
    assert json.loads(file.read_text()) == {
        "action": "terminate",
        "time": "2027-01-15T08:02:00Z",
        "seconds": 120,
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert node.ran == [("bash", str(bootstrap.AMI / "decommission.sh"), "10.0.0.7", "0")]
    notice = Notice(file)
    assert notice.time == "" or not notice.leaves
    file.unlink()
    watcher.look()  # it is passed on once
    assert not file.exists()


def test_a_master_that_is_taken_back_has_no_worker_to_decommission(
    parts: dict[str, ModuleType], tmp_path: Path
) -> None:
    node = MadeUpNode(tmp_path, "master")
    parts["notices"].Watcher(node, MadeUpMetadata({ACTION: SOON})).look()
    assert node.ran == []
    assert (tmp_path / parts["notices"].FILE).exists()


def test_advice_to_rebalance_and_hibernation_only_are_put_down_in_the_log(
    parts: dict[str, ModuleType], tmp_path: Path
) -> None:
    node = MadeUpNode(tmp_path)
    said = {ADVICE: '{"noticeTime": "2027-01-15T08:00:00Z"}', ACTION: SOON.replace("terminate", "hibernate")}
    parts["notices"].Watcher(node, MadeUpMetadata(said)).look()
    assert [line.split(":")[0] for line in node.log] == [
        "EC2 takes this node back",
        "EC2 may take this node back soon",
    ]
    assert node.ran == []
    assert not (tmp_path / parts["notices"].FILE).exists()


def test_the_end_of_the_worker_s_log_goes_to_the_console(
    parts: dict[str, ModuleType], tmp_path: Path
) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/console").touch()
    (tmp_path / "var/log").mkdir(parents=True)
    (tmp_path / parts["notices"].LOG).write_text("x" * 9000 + "\nthe last line\n")
    parts["notices"].Watcher(MadeUpNode(tmp_path), MadeUpMetadata({ACTION: SOON})).look()
    said = (tmp_path / "dev/console").read_text()
    assert said.startswith("sparknet: EC2 takes this node back: terminate at")
    assert said.endswith("\nthe last line\n")
    assert len(said) < 5000


# -- idleness --------------------------------------------------------------------------------------------


@pytest.fixture
def pages(parts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What Spark's master says, by its address; it does not answer where nothing is."""
    found: dict[str, object] = {}
    monkeypatch.setattr(parts["idleness"], "page_of", found.get)
    return found


def passes(watcher: object, metadata: MadeUpMetadata, minutes: float) -> None:
    for _ in range(int(minutes * 4)):
        metadata.time += 15
        watcher.look()  # type: ignore[attr-defined]


def test_a_master_ends_itself_after_so_long_without_a_job(
    parts: dict[str, ModuleType], pages: dict[str, object], tmp_path: Path
) -> None:
    node, metadata = MadeUpNode(tmp_path, "master"), MadeUpMetadata()
    node.settings = {"idle_minutes": "30", "master": "10.0.0.1"}
    pages["10.0.0.1"] = {"activeapps": []}
    watcher = parts["idleness"].watcher(node, metadata)
    passes(watcher, metadata, 29)
    assert node.ended == []
    node.answers = {"list.sh": "a\t2027\t0\tp\nb\t2027\trunning\tp\n"}  # a job that was submitted
    passes(watcher, metadata, 600)
    node.answers = {"list.sh": "a\t2027\t0\tp\nb\t2027\tlost\trunning\n"}
    passes(watcher, metadata, 29)
    pages["10.0.0.1"] = {"activeapps": [{"name": "a shell of somebody's"}]}
    passes(watcher, metadata, 600)
    pages["10.0.0.1"] = {"activeapps": []}
    passes(watcher, metadata, 29)
    assert node.ended == []
    passes(watcher, metadata, 2)
    assert node.ended[0] == "no job has run for 30 minutes, and --idle-minutes are over"


@pytest.mark.parametrize("role", ["master", "worker"])
@pytest.mark.parametrize("said", ["", "0", "soon"])
def test_without_that_setting_nothing_ends_for_want_of_jobs(
    parts: dict[str, ModuleType], pages: dict[str, object], tmp_path: Path, role: str, said: str
) -> None:
    node, metadata = MadeUpNode(tmp_path, role), MadeUpMetadata()
    node.settings = {"idle_minutes": said, "master": "10.0.0.1"}
    watcher = parts["idleness"].watcher(node, metadata)
    passes(watcher, metadata, 3000)
    assert node.ended == []
    node.settings["idle_minutes"] = "30"  # counted from when it is given
    passes(watcher, metadata, 14)
    assert node.ended == []


def test_a_worker_ends_soon_after_an_idle_master_and_late_after_a_busy_one(
    parts: dict[str, ModuleType], pages: dict[str, object], tmp_path: Path
) -> None:
    node, metadata = MadeUpNode(tmp_path), MadeUpMetadata()
    node.settings = {"idle_minutes": "30", "master": "10.0.0.1"}
    watcher = parts["idleness"].watcher(node, metadata)
    pages["10.0.0.1"] = {"activeapps": [{}]}
    passes(watcher, metadata, 300)
    del pages["10.0.0.1"]  # in the middle of a job: another one may come in its place
    passes(watcher, metadata, 29)
    assert node.ended == []
    pages["10.0.0.1"] = {"activeapps": []}
    passes(watcher, metadata, 31)  # the master looks for itself whether a job runs that has no application
    assert node.ended == []
    del pages["10.0.0.1"]
    passes(watcher, metadata, 3)
    assert node.ended[0] == "the cluster's master has been gone for 2 minutes"


def test_a_worker_whose_master_was_lost_under_a_job_ends_when_it_does_not_come_back(
    parts: dict[str, ModuleType], pages: dict[str, object], tmp_path: Path
) -> None:
    node, metadata = MadeUpNode(tmp_path), MadeUpMetadata()
    node.settings = {"idle_minutes": "5", "master": "10.0.0.1"}
    watcher = parts["idleness"].watcher(node, metadata)
    pages["10.0.0.1"] = {"activeapps": [{}]}
    passes(watcher, metadata, 10)
    del pages["10.0.0.1"]
    passes(watcher, metadata, 4.5)
    assert node.ended == []
    passes(watcher, metadata, 11)
    assert node.ended


# -- how it is started -----------------------------------------------------------------------------------


def test_it_is_started_with_its_settings_and_again_only_where_it_has_changed() -> None:
    hosts = [ScriptedHost(), ScriptedHost()]
    for host in hosts:
        starting.start(host, "worker", master="10.0.0.1", idle_minutes=30)
    assert hosts[0].ran[0] == "sudo bash /opt/sparknet/ami/settings.sh master 10.0.0.1 idle_minutes 30"
    assert hosts[0].ran[-1].endswith("start-unit.sh /opt/sparknet/conf/sparknet-agent.service sparknet-agent")
    [unit] = hosts[0].stdin.values()
    assert "ExecStart=/opt/sparknet/venv/bin/python -I /opt/sparknet/ami/agent worker\n" in unit
    assert "Environment=SPARKNET_BOUND_TO=" in unit
    assert hosts[1].stdin == hosts[0].stdin


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_takes_its_unit(tmp_path: Path) -> None:
    template = (bootstrap.AMI / "systemd/sparknet-agent.service.template").read_text()
    text = bootstrap.render(template, {"ROOT": "", "ROLE": "worker", "BOUND_TO": "0"})
    unit = tmp_path / "sparknet-agent.service"
    unit.write_text(text.replace("/opt/sparknet/venv/bin/python", "/bin/true"))
    words = ["systemd-analyze", "verify", str(unit)]
    checked = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert "sparknet-agent" not in checked.stderr, checked.stderr


def test_settings_are_whole_files_that_the_agent_reads(parts: dict[str, ModuleType], tmp_path: Path) -> None:
    words = ["bash", str(bootstrap.AMI / "settings.sh"), "idle_minutes", "30", "master", "10.0.0.1"]
    subprocess.run(words, env={**os.environ, "SPARKNET_ROOT": str(tmp_path)}, check=True, timeout=30)
    node = parts["node"].Node(tmp_path, "worker")
    assert (node.setting("idle_minutes"), node.setting("master")) == ("30", "10.0.0.1")
    assert node.setting("nothing") == ""
    assert sorted(one.name for one in (tmp_path / "etc/sparknet").iterdir()) == ["idle_minutes", "master"]


def test_it_needs_the_standard_library_alone() -> None:
    code = f"import sys; sys.path.insert(0, {str(AGENT)!r}); import notices, idleness, metadata, node"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, timeout=60)


def test_a_command_that_fails_is_put_down_and_ends_nothing(
    parts: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = parts["node"].Node(tmp_path, "worker")
    assert node.run("sh", "-c", "echo wrong >&2; exit 3") == ""
    assert "sh -c failed: wrong" in capsys.readouterr().err
    assert node.run("echo", "fine") == "fine\n"
