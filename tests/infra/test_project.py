"""What travels with a program, and what of a command line becomes what Spark is told."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from infra.errors import UsageError
from infra.jobs import Request, project, requirements, script
from infra.node import bootstrap
from infra.program import find

SLOTS = bootstrap.AMI / "job/slots.py"
TREE = (
    "main.py", "a.log", "keep.log", "build/x.o", "src/build/y.o", "src/a.py", "src/.gitignore", "src/a.log",
    "src/deep/b.log", "src/deep/c.tmp", "docs/index.md", "docs/api/page.md", "data/rows.csv",
    "data/more/big.bin", "with space/it's.txt", "größe/日本.txt", "trailing/x", "sub/only/this.txt",
    "sub/other.txt",
)  # fmt: skip
IGNORED = """\
*.log
!keep.log
build/
/docs/*
!/docs/index.md
data/**/big.bin
# a comment
sub/*
!sub/only/
"""
IN_SRC = "!a.log\n*.tmp\n"


def make(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return folder


def paths(folder: Path, program: str = "main.py") -> list[str]:
    return [item.path for item in project.collect(find(str(folder / program))).items]


def test_what_git_ignores_stays_here(tmp_path: Path) -> None:
    folder = make(tmp_path / "outer/project", *TREE)
    (folder / ".gitignore").write_text(IGNORED)
    (folder / "src/.gitignore").write_text(IN_SRC)
    (tmp_path / "outer/.gitignore").write_text("trailing/\n")
    git = [
        "git",
        "-C",
        str(tmp_path / "outer"),
        "-c",
        "core.excludesFile=/dev/null",
        "-c",
        "core.quotePath=off",
    ]
    subprocess.run([*git, "init", "-q"], check=True, timeout=30)
    listing = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "project"]
    told = subprocess.run(listing, check=True, capture_output=True, timeout=30).stdout
    by_git = [os.fsdecode(one).removeprefix("project/") for one in told.split(b"\0") if one]
    assert paths(folder) == sorted(by_git)
    assert "docs/api/page.md" not in by_git
    assert "src/a.log" in by_git


def test_environments_caches_secrets_and_results_stay_here_and_secrets_are_named(tmp_path: Path) -> None:
    left = (".git/config", "env/pyvenv.cfg", "env/lib/x.py", "__pycache__/main.pyc", "node_modules/a.js")
    secrets = (".env", "my.pem", "deep/id_rsa", ".aws/credentials")
    folder = make(tmp_path, "main.py", "deep/a.py", *left, *secrets)
    os.mkfifo(folder / "pipe")
    (folder / "gone").symlink_to("nowhere")
    (folder / "deep/up").symlink_to("..")
    (folder / "linked").symlink_to("deep/a.py")
    found = project.collect(find(str(folder / "main.py")))
    assert [item.path for item in found.items] == ["deep/a.py", "linked", "main.py"]
    assert {one.path: one.kind for one in found.left_out} == {
        ".aws": "it may hold a secret",
        ".env": "it may hold a secret",
        "deep/id_rsa": "it may hold a secret",
        "my.pem": "it may hold a secret",
        "gone": "a link that leads nowhere",
        "deep/up": "a link into itself",
        "pipe": "a FIFO",
    }


def test_a_program_in_the_home_folder_travels_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make(tmp_path, "main.py", "private.txt")
    assert paths(tmp_path) == ["main.py"]


def test_a_folder_that_is_too_large_is_refused_with_what_fills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "main.py")
    with (tmp_path / "data.bin").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(UsageError, match=r"too large to travel .* data\.bin \(3,221 MB\).*\.gitignore"):
        paths(tmp_path)
    (tmp_path / ".gitignore").write_text("data.bin\n")
    monkeypatch.setattr(project, "MOST_FILES", 3)
    make(tmp_path, *(f"many/{number}" for number in range(5)))
    with pytest.raises(UsageError, match="too large to travel"):
        paths(tmp_path)


def test_a_program_that_would_not_travel_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "main.py")
    (tmp_path / ".gitignore").write_text("*.py\n")
    with pytest.raises(UsageError, match=r"main\.py of .* would not travel"):
        paths(tmp_path)


def test_a_folder_runs_its_main_file(tmp_path: Path) -> None:
    for number, (names, start) in enumerate(
        [
            (("__main__.py", "main.py"), "__main__.py"),
            (("main.py", "b.py"), "main.py"),
            (("only.py",), "only.py"),
        ]
    ):
        found = find(str(make(tmp_path / f"p{number}", *names)))
        assert (found.name, found.start, found.kind) == (f"p{number}", start, "file")
    with pytest.raises(UsageError, match=r"is not clear \(it has a\.py, b\.py\)"):
        find(str(make(tmp_path / "two", "a.py", "b.py")))
    with pytest.raises(UsageError, match="no Python program"):
        find(str(make(tmp_path, "run.sh") / "run.sh"))


def test_a_module_is_found_as_python_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "pkg/__init__.py", "pkg/train.py", "pkg/sub/__main__.py", "other/pkg/late.py")
    monkeypatch.chdir(tmp_path)
    for word in ("pkg.train", "pkg.sub"):
        assert (find(word).start, find(word).kind, find(word).folder) == (word, "module", tmp_path)
    assert find("pkg.late", tmp_path / "other").folder == tmp_path / "other"
    with pytest.raises(UsageError, match="There is no app pkg"):
        find("pkg.none")


def test_another_folder_than_its_own_travels_where_one_is_named(tmp_path: Path) -> None:
    make(tmp_path, "src/train.py", "data/rows.csv")
    program = find(str(tmp_path / "src/train.py"), tmp_path)
    assert program.start == "src/train.py"
    assert [item.path for item in project.collect(program).items] == ["data/rows.csv", "src/train.py"]
    with pytest.raises(UsageError, match="is not in the folder"):
        find(str(tmp_path / "src/train.py"), tmp_path / "data")


def test_modules_are_zipped_alike_each_time(tmp_path: Path) -> None:
    make(tmp_path, "main.py", "pkg/a.py", "data.csv")
    found = project.collect(find(str(tmp_path / "main.py")))
    zipped = script.modules(found)
    os.utime(tmp_path / "main.py", (1, 1))
    assert script.modules(project.collect(find(str(tmp_path / "main.py")))) == zipped
    assert zipfile.ZipFile(io.BytesIO(zipped)).namelist() == ["main.py", "pkg/a.py"]


def request_of(tmp_path: Path, **more: Any) -> Request:
    return Request(program=find(str(make(tmp_path, "main.py") / "main.py")), **more)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"env": {"A B": "1"}}, "cannot be the name of an environment variable"),
        ({"driver_memory": "lots"}, "--driver-memory lots is no size like 4g"),
        ({"workers": 0}, "--num-workers 0: a job needs at least one"),
        ({"conf": {"spark.master": "local"}}, "--conf spark.master"),
        ({"conf": {"colour": "red"}}, "--conf colour"),
        ({"py_files": ("nowhere.py",)}, "There is no file nowhere.py for --py-files"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path: Path, more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        request_of(tmp_path, **more)


def test_settings_are_written_as_java_reads_them(tmp_path: Path) -> None:
    asked = request_of(tmp_path, env={"TOKEN": " a=b:c\\d\ne #!"}, conf={"spark.eventLog.compress": "false"})
    lines = script.settings(
        asked, PurePosixPath("/jobs/a/spark-events"), {"spark.cores.max": "2"}
    ).splitlines()
    assert lines == [
        "spark.eventLog.enabled true",
        "spark.eventLog.dir file\\:///jobs/a/spark-events",
        "spark.eventLog.compress false",
        "spark.executorEnv.TOKEN \\ a\\=b\\:c\\\\d\\ne\\ \\#\\!",
        "spark.cores.max 2",
    ]


def test_spark_is_told_what_was_asked(tmp_path: Path) -> None:
    make(tmp_path / "other", "a.jar", "b.py", "it's.txt")
    here = {name: str(tmp_path / "other" / name) for name in ("a.jar", "b.py", "it's.txt")}
    asked = request_of(
        tmp_path, arguments=("--x", "a b"), env={"SECRET": "s3cret"}, jars=(here["a.jar"], "s3a://b/c.jar"),
        py_files=(here["b.py"],), files=(here["it's.txt"],), packages=("org:a:1",), driver_memory="2g",
        workers=2,
    )  # fmt: skip
    folder = PurePosixPath("/jobs/a")
    place = script.Place(
        root=PurePosixPath("/"), address="10.0.0.1", folder=folder, cores=4, has_modules=True
    )
    text = script.command(asked, place)
    words = subprocess.run(
        ["bash", "-c", text.replace("cd /jobs/a/work", "").replace("exec ", "printf '%s\\n' ")],
        capture_output=True, text=True, check=True, timeout=20,
    ).stdout.splitlines()  # fmt: skip
    told = dict(pairwise(words))
    assert told["--py-files"] == "/jobs/a/trainer.zip,/jobs/a/modules.zip,/jobs/a/py-files/b.py"
    assert told["--jars"] == "/jobs/a/jars/a.jar,s3a://b/c.jar"
    assert told["--files"] == "/jobs/a/files/it's.txt"
    assert (told["--packages"], told["--driver-memory"]) == ("org:a:1", "2g")
    assert words[-6:] == [
        "/jobs/a/trainer/_sparknet_program.py", "/jobs/a/work", "file", "/jobs/a/work/main.py", "--x", "a b"
    ]  # fmt: skip
    assert "s3cret" not in " ".join(words)
    assert script.of_place(asked, place) == {"spark.executor.cores": "4", "spark.cores.max": "8"}
    assert script.of_place(replace(asked, workers=None), place) == {}


def test_requirements_are_one_text_and_are_known_by_all_of_it(tmp_path: Path) -> None:
    make(tmp_path, "wheels/a-1.0-py3-none-any.whl")
    (tmp_path / "base.txt").write_text("numpy>=1\n")
    (tmp_path / "requirements.txt").write_text(
        "# ours\n-r base.txt\nwheels/a-1.0-py3-none-any.whl\n--index-url https://x/\n"
    )
    found = requirements.read(tmp_path / "requirements.txt")
    assert found.text == "numpy>=1\n./a-1.0-py3-none-any.whl\n--index-url https://x/\n"
    assert [one.name for one in found.archives] == ["a-1.0-py3-none-any.whl"]
    assert requirements.read(tmp_path / "requirements.txt") == found
    make(tmp_path, "wheels/a-1.0-py3-none-any.whl")
    (tmp_path / "wheels/a-1.0-py3-none-any.whl").write_text("another")
    assert requirements.read(tmp_path / "requirements.txt").digest != found.digest
    for line in ("-e .", "-c limits.txt", "./folder", "-r requirements.txt"):
        (tmp_path / "requirements.txt").write_text(f"{line}\n")
        with pytest.raises(UsageError):
            requirements.read(tmp_path / "requirements.txt")


def holders(mine: Path) -> list[str]:
    """Whom a job has to wait for; nothing listens at Spark's port."""
    ran = subprocess.run(
        [sys.executable, "-I", "-S", str(SLOTS), str(mine), "127.9.9.9"],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    return ran.stdout.split()


def test_jobs_that_came_before_are_in_the_way_if_they_want_what_this_one_wants(tmp_path: Path) -> None:
    running = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        for number, (name, workers) in enumerate([("a", "all"), ("b", "1"), ("c", "1"), ("d", "all")], 1):
            job = tmp_path / name
            job.mkdir()
            (job / "pid").write_text(f"{running.pid}\n")
            (job / "ticket").write_text(f"{number}\n")
            (job / "workers").write_text(f"{workers}\n")
        assert holders(tmp_path / "a") == []
        assert holders(tmp_path / "b") == ["a"]
        assert holders(tmp_path / "d") == ["a", "b", "c"]
        (tmp_path / "a/exit_code").write_text("0\n")
        assert holders(tmp_path / "b") == holders(tmp_path / "c") == []
        assert holders(tmp_path / "d") == ["b", "c"]
    finally:
        running.kill()
        running.wait()


def test_a_program_is_run_as_python_would(tmp_path: Path) -> None:
    make(tmp_path, "pkg/__init__.py", "neighbour.py")
    (tmp_path / "pkg/__init__.py").write_text("")
    (tmp_path / "neighbour.py").write_text("WORD = 'beside'\n")
    text = """
import json, sys
import neighbour
def f(): pass
print(json.dumps([__name__, sys.argv, __file__, neighbour.WORD, f.__module__, 'runpy' in globals()]))
sys.exit(5)
"""
    program = bootstrap.AMI / "job/program.py"
    for name, words in {
        "it's a.py": ["file", str(tmp_path / "it's a.py")],
        "pkg/m.py": ["module", "pkg.m"],
    }.items():
        (tmp_path / name).write_text(text)
        ran = subprocess.run(
            [sys.executable, str(program), str(tmp_path), *words, "--x", "1"],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert ran.returncode == 5, ran.stderr
        module, arguments, file, word, of_f, has_runpy = json.loads(ran.stdout)
        assert (module, of_f, word, has_runpy) == ("__main__", "__main__", "beside", False)
        assert file == str(tmp_path / name)
        assert arguments[1:] == ["--x", "1"]
