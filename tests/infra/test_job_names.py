"""Jobs of programs with unusual names: started, listed, followed, cancelled and fetched as any other."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from infra import job_names, jobs, program
from infra.cluster import Cloud
from infra.errors import JobError
from infra.jobs import submission
from tests.infra.test_jobs import running as running  # the fixture
from tests.infra.test_jobs import submitted

NAMES = (
    "br oken", "exp(1)", "it's", "-dash", ".hidden", 'say "yes"', "größe", "日本", "a#b", "100%", "a,b;c|d",
    "$HOME", "`id`", "a\\b", "two\nlines", "tab\there", "[x]*?", "x" * 200, "...", "naïve café", "~", "a&b",
    "!", "--", "e=mc2",
)  # fmt: skip
SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def safe_folder(name: str) -> str:
    """A folder for each program: what is beside it travels."""
    return f"p{NAMES.index(name)}"


def own_program(folder: Path, name: str) -> program.Program:
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.py"
    file.write_text("print('mine')\n")
    return program.find(str(file))


@pytest.mark.parametrize("name", NAMES)
def test_an_id_is_a_plain_word_whatever_the_program_is_called(name: str) -> None:
    identity = job_names.of_now(name)
    assert SAFE.fullmatch(identity)
    assert len(identity) <= job_names.LONGEST + 16


def test_ordinary_names_stay_as_they_are() -> None:
    assert [job_names.safe(name) for name in ("CifarApp", "my_net.v2", "run-1")] == [
        "CifarApp",
        "my_net.v2",
        "run-1",
    ]


def test_a_job_of_any_name_is_reached_by_its_id_and_by_its_name(
    running: tuple[Cloud, str, Path], tmp_path: Path
) -> None:
    for name in NAMES:
        run_and_reach(running, tmp_path, name)


def run_and_reach(running: tuple[Cloud, str, Path], tmp_path: Path, name: str) -> None:
    cloud, cluster, root = running
    job = submitted(cloud, cluster, own_program(tmp_path / safe_folder(name), name), "a b")
    lines: list[str] = []
    assert jobs.follow(cloud, cluster, job, lines.append) == 0
    said = "\n".join(lines)
    folder = root / "var/lib/sparknet/jobs" / job
    assert (
        f"{folder}/trainer/_sparknet_program.py\n{folder}/work\nfile\n{folder}/work/{name}.py\na b\n" in said
    )
    assert (folder / f"work/{name}.py").read_text() == "print('mine')\n"
    states = {one.id: one.state for one in jobs.jobs(cloud, cluster)}
    assert states[job] == "done"
    for word in (job, name, f"{name}.py", str(tmp_path / safe_folder(name) / f"{name}.py")):
        assert jobs.resolve(cloud, cluster, word) == job
    assert jobs.log(cloud, cluster, job, lines=100) == lines
    (root / "var/lib/sparknet/jobs" / job / "output/net.bin").write_bytes(b"weights")
    _, fetched = jobs.fetch(cloud, cluster, job, tmp_path / "results" / job).files
    assert fetched.read_bytes() == b"weights"
    assert jobs.cancel(cloud, cluster, job) is False


def test_jobs_of_one_second_have_folders_of_their_own(
    running: tuple[Cloud, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, cluster, root = running
    monkeypatch.setattr(job_names, "of_now", lambda name: f"{name}-20261130-101500")
    what, found = own_program(tmp_path, "twin"), list[str]()
    threads = [
        threading.Thread(target=lambda: found.append(submitted(cloud, cluster, what))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [f"twin-20261130-101500{end}" for end in ("", "-2", "-3")]
    assert all((root / "var/lib/sparknet/jobs" / one / "output").is_dir() for one in found)
    assert jobs.resolve(cloud, cluster, "twin") in found


def test_a_name_means_the_newest_job_of_it(
    running: tuple[Cloud, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, cluster, _ = running
    for moment, name in (("101500", "a b"), ("101501", "a-b"), ("101502", "a b")):
        monkeypatch.setattr(job_names, "of_now", lambda name, at=moment: f"{job_names.safe(name)}-{at}")
        submitted(cloud, cluster, own_program(tmp_path, name))
    # both are spelled alike in their ids, and are two programs all the same
    assert jobs.resolve(cloud, cluster, "a-b.py") == "a-b-101501"
    newest = max(one.id for one in jobs.jobs(cloud, cluster) if one.program == "a b")
    assert jobs.resolve(cloud, cluster, "a b") in (newest, "a-b-101500")
    with pytest.raises(JobError, match="There is no job nix"):
        jobs.resolve(cloud, cluster, "nix")


def test_a_job_that_could_not_be_staged_leaves_no_folder(
    running: tuple[Cloud, str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, cluster, root = running

    def full(*_: object, **__: object) -> None:
        raise JobError("no room")

    monkeypatch.setattr(submission, "_stage", full)
    with pytest.raises(JobError, match="no room"):
        submitted(cloud, cluster, own_program(tmp_path, "mine"))
    assert list((root / "var/lib/sparknet/jobs").iterdir()) == []


def test_a_job_of_an_older_version_with_any_name_is_still_reached(
    running: tuple[Cloud, str, Path],
) -> None:
    cloud, cluster, root = running
    folder = root / "var/lib/sparknet/jobs/br oken-20261130-101500"
    folder.mkdir()
    (folder / "pid").write_text("999999999\n")
    (folder / "exit_code").write_text("0\n")
    assert jobs.resolve(cloud, cluster, folder.name) == folder.name
    assert jobs.follow(cloud, cluster, folder.name, print) == 0
