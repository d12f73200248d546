"""Jobs: what is run, how it ends, and that it is found again. The scripts are run for real, in a folder."""

from __future__ import annotations

import os
import subprocess
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra import cluster, jobs, program
from infra.cluster import Cloud
from infra.ec2 import nodes
from infra.errors import CommandFailed, HostUnreachable, JobError, UsageError
from infra.events import ignore
from infra.node import bootstrap
from infra.node.host import Result
from infra.spec import ClusterSpec
from tests.infra.folder_host import FolderHost, asked

START, FOLLOW, LIST, CANCEL, ALIVE = (
    bootstrap.AMI / f"job/{name}.sh" for name in ("start", "follow", "list", "cancel", "alive")
)


@pytest.fixture
def running(simulated: Cloud, spec: ClusterSpec, tmp_path: Path) -> tuple[Cloud, str, Path]:
    """A launched cluster whose master is a folder."""
    cluster.launch(simulated, replace(spec, workers=1), ignore)
    host = FolderHost(tmp_path / "master")
    return replace(simulated, connect=lambda _node: host), spec.name, tmp_path / "master"


def own_program(tmp_path: Path) -> program.Program:
    file = tmp_path / "mine.py"
    file.write_text("print('mine')\n")
    return program.find(str(file))


def submitted(cloud: Cloud, name: str, what: program.Program, *arguments: str, **more: object) -> str:
    """The id of a job that was started, whoever has the workers."""
    return jobs.submit(cloud, name, asked(what, *arguments, **{"is_queued": True, **more})).job


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come true in 20 s"
        time.sleep(0.02)


def living(group: int) -> list[int]:
    """Processes of a process group, without those that are dead and not yet collected."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def started(folder: Path, command: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "command").write_text(command)
    subprocess.run(["bash", str(START), str(folder)], check=True, timeout=20)
    return folder


def test_a_job_runs_to_its_end_and_its_lines_and_status_come_back(
    running: tuple[Cloud, str, Path], tmp_path: Path
) -> None:
    cloud, name, _ = running
    job = submitted(cloud, name, own_program(tmp_path), "--tau", "a b", env={"WANTED_STATUS": "5"})
    lines: list[str] = []
    assert jobs.follow(cloud, name, job, lines.append) == 5
    assert lines[:2] == ["--master", f"spark://{cluster.find(cloud, name).nodes[0].private_ip}:7077"]
    assert lines[-2:] == ["a b", "to stderr"] or "a b" in lines
    (known,) = jobs.jobs(cloud, name)
    assert (known.id, known.state, known.exit_code, known.ended_by) == (job, "failed", 5, "program")
    assert jobs.latest(cloud, name) == job
    assert jobs.log(cloud, name, job, lines=100) == lines


def test_the_packages_go_with_the_job_as_a_zip_and_as_files(
    running: tuple[Cloud, str, Path], tmp_path: Path
) -> None:
    cloud, name, root = running
    job = submitted(cloud, name, own_program(tmp_path))
    folder = root / "var/lib/sparknet/jobs" / job
    with zipfile.ZipFile(folder / "trainer.zip") as archive:
        held = archive.namelist()
    assert {"sparknet/weights.py", "sparknet/errors.py"} <= set(held)
    assert not any("__pycache__" in entry for entry in held)
    assert (folder / "trainer/sparknet/weights.py").is_file()
    assert (folder / "work/mine.py").read_text() == "print('mine')\n"


def test_what_a_job_leaves_is_fetched(running: tuple[Cloud, str, Path], tmp_path: Path) -> None:
    cloud, name, root = running
    job = submitted(cloud, name, own_program(tmp_path))
    (root / "var/lib/sparknet/jobs" / job / "output/model.caffemodel").write_bytes(b"weights")
    jobs.follow(cloud, name, job, print)
    found = jobs.fetch(cloud, name, job, tmp_path / "results")
    assert [str(file.relative_to(tmp_path / "results")) for file in found.files] == [
        "job.log",
        "model.caffemodel",
    ]
    assert found.files[1].read_bytes() == b"weights"


def test_a_job_nobody_knows_is_refused(running: tuple[Cloud, str, Path]) -> None:
    cloud, name, _ = running
    for word in ("nix", "../../etc", "a b"):
        with pytest.raises(JobError, match="There is no job"):
            jobs.follow(cloud, name, word, print)
    with pytest.raises(JobError, match="No job was given"):
        jobs.latest(cloud, name)


def test_a_variable_that_cannot_be_is_refused(running: tuple[Cloud, str, Path], tmp_path: Path) -> None:
    cloud, name, _ = running
    with pytest.raises(UsageError, match="cannot be the name"):
        submitted(cloud, name, own_program(tmp_path), env={"A B": "1"})


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("CifraApp", "did you mean CifarApp"),
        ("Nonsense", "there are: CifarApp"),
        ("nowhere.py", "There is no file nowhere.py"),
    ],
)
def test_a_program_that_is_not_there_is_named(word: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        program.find(word)


def test_an_app_is_known_by_its_name() -> None:
    what = program.find("CifarApp")
    assert (what.name, what.start, what.is_app) == ("CifarApp", "CifarApp.py", True)


def test_following_tells_what_is_said_until_the_end_and_starts_where_it_is_told(tmp_path: Path) -> None:
    folder = started(
        tmp_path / "job", "for i in 1 2 3; do echo line $i; sleep 0.1; done; printf last; exit 3"
    )
    told = subprocess.run(["bash", str(FOLLOW), str(folder), "2"], capture_output=True, text=True, timeout=20)
    assert told.stdout.splitlines() == ["line 2", "line 3", "last"]
    wait_for((folder / "exit_code").exists)
    assert (folder / "exit_code").read_text() == "3\n"


def test_a_cancelled_job_does_not_run_and_says_130(tmp_path: Path) -> None:
    folder = started(tmp_path / "jobs/a", "sleep 300 & sleep 300")
    group = int((folder / "pid").read_text())
    subprocess.run(["bash", str(CANCEL), str(folder)], check=True, timeout=20)
    assert (folder / "exit_code").read_text() == "130\n"
    assert living(group) == []
    subprocess.run(["bash", str(CANCEL), str(folder)], check=True, timeout=20)


def test_the_list_knows_running_ended_and_lost_jobs(tmp_path: Path) -> None:
    home = tmp_path / "jobs"
    ended, running_job, lost = (started(home / name, command) for name, command in (
        ("ended", "exit 0"), ("running", "sleep 300"), ("lost", "sleep 300"),
    ))  # fmt: skip
    wait_for((ended / "exit_code").exists)
    subprocess.run(["pkill", "-KILL", "-g", (lost / "pid").read_text().strip()], check=True)

    def states() -> dict[str, str]:
        told = subprocess.run(["bash", str(LIST), str(home)], capture_output=True, text=True, timeout=20)
        return {line.split("\t")[0]: line.split("\t")[2] for line in told.stdout.splitlines()}

    wait_for(lambda: states() == {"ended": "0", "running": "running", "lost": "lost"})
    subprocess.run(["bash", str(CANCEL), str(running_job)], check=True, timeout=20)


def test_a_process_that_ends_meanwhile_does_not_hide_the_job(tmp_path: Path) -> None:
    for pid, stat in {"1": None, "2": "2 (a b) c) S 1 7 7 0", "3": "3 (sh) Z 1 8 8 0"}.items():
        (tmp_path / pid).mkdir()
        if stat:
            (tmp_path / pid / "stat").write_text(stat + "\n")
        else:
            (tmp_path / pid / "stat").symlink_to("gone")
    found = [subprocess.run(["bash", str(ALIVE), group, str(tmp_path)], timeout=20) for group in "789"]
    assert [one.returncode for one in found] == [0, 1, 1]


def test_a_job_is_started_once(tmp_path: Path) -> None:
    folder = started(tmp_path / "job", "exit 0")
    again = subprocess.run(["bash", str(START), str(folder)], capture_output=True, text=True, timeout=20)
    assert again.returncode == 1
    assert "was started before" in again.stderr


@pytest.mark.parametrize(
    ("end", "cure"),
    [("master", "repair --name .* puts another one"), ("all", "launch --name .* makes the cluster anew")],
)
@pytest.mark.parametrize("status", [143, 137, None], ids=["terminated", "killed", "silent"])
def test_a_job_whose_master_ends_is_said_to_be_lost_with_what_to_do(
    running: tuple[Cloud, str, Path], tmp_path: Path, end: str, cure: str, status: int | None
) -> None:
    cloud, name, _ = running
    job = submitted(cloud, name, own_program(tmp_path))
    there = cluster.find(cloud, name)
    ids = [node.id for node in there.nodes][: 1 if end == "master" else None]

    class Ending(FolderHost):
        """The machine goes down under the command that follows the log."""

        def run(self, command: str, **options: object) -> Result:  # type: ignore[override]
            if "follow.sh" not in command:
                return super().run(command, **options)  # type: ignore[arg-type]
            nodes.terminate(cloud.region, ids)
            if status is None:
                raise HostUnreachable(self.name, "went away while a command was running")
            raise CommandFailed(self.name, command, status)

    ending = Ending(tmp_path / "other")
    (tmp_path / "other/var/lib/sparknet/jobs").rmdir()
    (tmp_path / "other/var/lib/sparknet/jobs").symlink_to(tmp_path / "master/var/lib/sparknet/jobs")
    with pytest.raises(JobError, match=rf"The master of {name} .* has ended .*{job} with it.*{cure}"):
        jobs.follow(replace(cloud, connect=lambda _node: ending), name, job, print)


def test_a_command_that_fails_by_itself_is_no_lost_master(
    running: tuple[Cloud, str, Path], tmp_path: Path
) -> None:
    cloud, name, root = running
    job = submitted(cloud, name, own_program(tmp_path))
    (root / bootstrap.ON_NODE).unlink()
    with pytest.raises(CommandFailed, match="status 127"):
        jobs.follow(cloud, name, job, print)
