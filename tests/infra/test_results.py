"""What a job leaves: which files come back, when the link breaks as well, and that none travels twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from infra import cluster, jobs
from infra.cluster import Cloud
from infra.errors import SetupError, UsageError
from infra.events import ignore
from infra.jobs import Moved, received, results
from infra.node.ssh import SSHHost
from infra.spec import ClusterSpec
from tests.infra.folder_host import FolderHost, asked
from tests.infra.results import check_odd_results, make_odd_results
from tests.infra.sshd import Server
from tests.infra.test_ssh import new_key

#: a Spark that runs the program, which is a script of the shell here
SPARK = """\
#!/bin/bash
while [ "$1" != file ]; do shift; done
exec bash "$2"
"""
Made = tuple[Cloud, str, Path]


@pytest.fixture
def made(simulated: Cloud, spec: ClusterSpec, tmp_path: Path) -> Made:
    """A launched cluster whose master is a folder."""
    cluster.launch(simulated, replace(spec, workers=1), ignore)
    host = FolderHost(tmp_path / "master", SPARK)
    return replace(simulated, connect=lambda _node: host), spec.name, tmp_path / "master"


def project(tmp_path: Path, script: str, files: dict[str, str] | None = None) -> Path:
    folder = tmp_path / "project"
    for name, text in {"run.py": script, **(files or {})}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder / "run.py"


def ended(made: Made, program: Path) -> str:
    """The id of a job that ran to its end."""
    cloud, name, _ = made
    job = jobs.submit(cloud, name, asked(program)).job
    assert jobs.follow(cloud, name, job, print) == 0
    return job


def names(found: jobs.Results, target: Path) -> list[str]:
    return [str(file.relative_to(target)) for file in found.files]


def test_what_was_made_or_changed_comes_back_and_what_was_sent_does_not(made: Made, tmp_path: Path) -> None:
    script = """
        echo model >model.bin; mkdir deep; echo more >deep/more.txt; echo 4 >>data/rows.csv
        touch data/same.csv; echo again >data/as-before.csv; mkdir __pycache__; echo >__pycache__/run.pyc
        echo secret >.env; echo key >my.pem; mkdir .aws; echo >.aws/config
        mkfifo pipe; ln -s nowhere gone; ln -s /usr/share elsewhere; ln -s model.bin latest
        echo result >"$SPARKNET_OUTPUT/result.txt"
    """
    given = {"data/rows.csv": "1\n", "data/same.csv": "2\n", "data/as-before.csv": "again\n"}
    job = ended(made, project(tmp_path, script, given))
    target = tmp_path / "results"
    found = jobs.fetch(*made[:2], job, target)
    assert names(found, target) == [
        "job.log",
        "result.txt",
        "work/data/rows.csv",
        "work/deep/more.txt",
        "work/latest",
        "work/model.bin",
    ]
    assert (target / "work/data/rows.csv").read_text() == "1\n4\n"
    assert {one.path: one.kind for one in found.left_out} == {
        "work/.aws": "it may hold a secret",
        "work/.env": "it may hold a secret",
        "work/elsewhere": "a link to a folder elsewhere",
        "work/gone": "a link that leads nowhere",
        "work/my.pem": "it may hold a secret",
        "work/pipe": "a FIFO",
    }
    assert not (target / received.UNFINISHED).exists()


def test_what_is_here_already_is_not_fetched_again(made: Made, tmp_path: Path) -> None:
    job = ended(made, project(tmp_path, "for i in 1 2 3; do echo $i >$SPARKNET_OUTPUT/$i; done"))
    target = tmp_path / "results"
    assert jobs.fetch(*made[:2], job, target).moved.files == 4
    assert jobs.fetch(*made[:2], job, target).moved.all_files == 0
    (made[2] / "var/lib/sparknet/jobs" / job / "output/2").write_text("changed")
    (target / "3").unlink()
    assert jobs.fetch(*made[:2], job, target).moved.files == 2
    assert [(target / one).read_text() for one in "123"] == ["1\n", "changed", "3\n"]


def test_what_is_no_file_is_left_out_by_name(made: Made, tmp_path: Path) -> None:
    job = ended(made, project(tmp_path, "true"))
    output = made[2] / "var/lib/sparknet/jobs" / job / "output"
    output.rmdir()
    wanted = make_odd_results(output)
    found = jobs.fetch(*made[:2], job, tmp_path / "results")
    assert {one.path: one.kind for one in found.left_out} == wanted
    (tmp_path / "results/job.log").unlink()
    check_odd_results(tmp_path / "results")


def test_files_of_any_name_come_back(made: Made, tmp_path: Path) -> None:
    job = ended(made, project(tmp_path, "true"))
    odd = (
        "a b",
        "it's",
        "größe",
        "日本",
        "-rf",
        "two\nlines",
        "$HOME",
        "a\\b",
        "%41",
        os.fsdecode(b"caf\xe9"),
    )
    for root in ("output", "work"):
        for name in odd:
            (made[2] / "var/lib/sparknet/jobs" / job / root / name).write_text(root)
    jobs.fetch(*made[:2], job, tmp_path / "results")
    for name in odd:
        assert (tmp_path / "results" / name).read_text() == "output"
        assert (tmp_path / "results/work" / name).read_text() == "work"


def test_names_of_the_jobs_own_go_before_ours(made: Made, tmp_path: Path) -> None:
    script = "mkdir $SPARKNET_OUTPUT/work; echo its >$SPARKNET_OUTPUT/work/a; echo ours >a"
    job = ended(made, project(tmp_path, script))
    jobs.fetch(*made[:2], job, tmp_path / "results")
    assert (tmp_path / "results/work/a").read_text() == "its\n"
    assert (tmp_path / "results/work-1/a").read_text() == "ours\n"


def test_results_come_while_the_job_runs(made: Made, tmp_path: Path) -> None:
    cloud, name, root = made
    script = """
        echo 1 >$SPARKNET_OUTPUT/first
        while [ ! -e stop ]; do sleep 0.05; done
        echo 2 >$SPARKNET_OUTPUT/second
    """
    job = jobs.submit(cloud, name, asked(project(tmp_path, script))).job
    folder, target = root / "var/lib/sparknet/jobs" / job, tmp_path / "results"
    while not (folder / "output/first").exists():
        assert jobs.jobs(cloud, name)[0].state == "running"
    assert "first" in names(jobs.fetch(cloud, name, job, target), target)
    (folder / "work/stop").touch()
    jobs.follow(cloud, name, job, print)
    assert "second" in names(jobs.fetch(cloud, name, job, target), target)


def test_one_copy_to_a_folder_at_a_time(made: Made, tmp_path: Path) -> None:
    job = ended(made, project(tmp_path, "true"))
    (tmp_path / "results").mkdir()
    with results._alone(tmp_path / "results"), pytest.raises(UsageError, match="are being copied"):
        jobs.fetch(*made[:2], job, tmp_path / "results")


def test_results_that_cannot_be_written_stay_on_the_cluster(made: Made, tmp_path: Path) -> None:
    job = ended(made, project(tmp_path, "true"))
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=rf"still on the cluster: .*results {job} .*--output ANOTHER"):
        jobs.fetch(*made[:2], job, tmp_path / "file/results")


class NodeHost(SSHHost):
    """A master reached by ssh whose root is a folder of this machine."""

    top: PurePosixPath

    @property
    def root(self) -> PurePosixPath:
        return self.top


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(new_key(tmp_path / "user.pem"), new_key(tmp_path / "host.pem")) as listening:
        yield listening


@pytest.fixture
def by_ssh(made: Made, server: Server, tmp_path: Path) -> Iterator[Cloud]:
    """The same master, reached by ssh."""
    host = NodeHost(
        "master", "127.0.0.1", port=server.port, user="ubuntu", key=tmp_path / "user.pem",
        known_hosts=tmp_path / "known/cluster",
    )  # fmt: skip
    host.top = PurePosixPath(made[2])
    yield replace(made[0], connect=lambda _node: host)
    host.close()


SIZE = 24_000_000


def test_a_link_that_breaks_costs_nothing_that_has_come(
    made: Made, by_ssh: Cloud, server: Server, tmp_path: Path
) -> None:
    job = ended(made, project(tmp_path, "echo small >$SPARKNET_OUTPUT/a"))
    content = os.urandom(SIZE)
    (made[2] / "var/lib/sparknet/jobs" / job / "output/big").write_bytes(content)
    breaks = iter((SIZE // 3, 2 * SIZE // 3, SIZE * 2))
    at, last = next(breaks), Moved(files=0, all_files=0, bytes=0, all_bytes=0)

    def drop(moved: Moved) -> None:
        nonlocal at, last
        last = moved
        if moved.bytes > at:
            at = next(breaks)
            server.drop()

    found = jobs.fetch(by_ssh, made[1], job, tmp_path / "results", on_moved=drop)
    assert (tmp_path / "results/big").read_bytes() == content
    assert found.moved == last
    assert server.connections == 3
    log = (tmp_path / "results/job.log").stat().st_size
    assert last.bytes == last.all_bytes == SIZE + len("small\n") + log  # no byte came twice


def test_a_project_arrives_over_a_link_that_breaks(
    made: Made, by_ssh: Cloud, server: Server, tmp_path: Path
) -> None:
    program = project(tmp_path, "cat a b | sha256sum >$SPARKNET_OUTPUT/sum")
    for name in "ab":
        (program.parent / name).write_bytes(os.urandom(2_000_000))
    has_dropped = False

    def drop(moved: Moved) -> None:
        nonlocal has_dropped
        if moved.bytes > 3_000_000 and not has_dropped:
            has_dropped = True
            server.drop()

    sent = jobs.submit(by_ssh, made[1], asked(program), on_moved=drop)
    assert has_dropped
    assert sent.moved.bytes < 4_000_000  # what had arrived whole was not sent again
    assert jobs.follow(by_ssh, made[1], sent.job, print) == 0
    again = jobs.submit(by_ssh, made[1], asked(program))
    assert again.moved.bytes == 0


def test_a_copy_that_was_cut_off_goes_on_and_a_damaged_beginning_is_noticed(
    made: Made, tmp_path: Path
) -> None:
    job = ended(made, project(tmp_path, "true"))
    big = made[2] / "var/lib/sparknet/jobs" / job / "output/big"
    content = os.urandom(3_000_000)
    big.write_bytes(content)
    found = big.stat()
    (unfinished := tmp_path / "results" / received.UNFINISHED).mkdir(parents=True)
    wanted = received.Wanted(
        root="output", inside="big", path=PurePosixPath("big"), size=found.st_size, time=found.st_mtime_ns
    )
    (unfinished / wanted.unfinished).write_bytes(content[:2_000_000])
    came = jobs.fetch(*made[:2], job, tmp_path / "results").moved
    assert came.bytes < 1_001_000
    (tmp_path / "results/big").unlink()
    unfinished.mkdir()
    (unfinished / wanted.unfinished).write_bytes(b"x" + content[1:2_000_000])
    jobs.fetch(*made[:2], job, tmp_path / "results")
    assert (tmp_path / "results/big").read_bytes() == content


def test_a_disk_that_fills_up_here_is_one_sentence_and_loses_nothing(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ended(made, project(tmp_path, "echo a >$SPARKNET_OUTPUT/a"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(received.Received, "_open", full)
        with pytest.raises(SetupError, match="No space left on device; they are still on the cluster"):
            jobs.fetch(*made[:2], job, tmp_path / "results")
    assert "a" in names(jobs.fetch(*made[:2], job, tmp_path / "results"), tmp_path / "results")
