"""A project on process hosts with a real Spark: the commands of docs/jobs.md, typed by a new user."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyspark
import pytest

from tests.infra.test_end_to_end import User
from tests.pages import DOCS, ROOT, commands

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]

SPARK = Path(pyspark.__file__).parent
PROJECT = {
    "train.py": """
import argparse, csv, os, sys
import tinything
from pyspark import SparkContext
from nets.model import Model
from nets.deep.scale import scaled

def work(x):
    import tinything
    return scaled(x) + tinything.ONE + float(os.environ.get("SHIFT", "0"))

parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float)
parser.add_argument("--status", type=int, default=0)
asked = parser.parse_args()
context = SparkContext()
rows = [float(row[0]) for row in csv.reader(open("data/rows.csv"))]
print("sum", context.parallelize(rows, 4).map(work).sum(), flush=True)
Model(asked.rate).save("model.json")
with open(os.path.join(os.environ["SPARKNET_OUTPUT"], "result.txt"), "w") as file:
    file.write("done")
sys.exit(asked.status)
""",
    "nets/__init__.py": "",
    "nets/model.py": """
import json

class Model:
    def __init__(self, rate):
        self.rate = rate

    def save(self, path):
        with open(path, "w") as file:
            json.dump({"rate": self.rate}, file)
""",
    "nets/deep/__init__.py": "",
    "nets/deep/scale.py": "def scaled(x):\n    return 2 * x\n",
    "data/rows.csv": "1\n2\n3\n",
    "requirements.txt": "# ours\n./tinything-1.0-py3-none-any.whl\n",
    ".gitignore": "junk/\n",
    "junk/large": "x" * 100_000,
    ".env": "TOKEN=1",
}


def typed() -> list[list[str]]:
    """What the page says is to be typed."""
    return [shlex.split(line) for line in commands(DOCS / "jobs.md")]


def make_wheel(folder: Path) -> None:
    info = "tinything-1.0.dist-info"
    with zipfile.ZipFile(folder / "tinything-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tinything.py", "ONE = 1\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinything\nVersion: 1.0\n")
        tags = "Root-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: a test\n{tags}")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    somebody = User(tmp_path_factory.mktemp("user"))
    for name, text in PROJECT.items():
        (somebody.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (somebody.folder / name).write_text(text)
    make_wheel(somebody.folder)
    somebody.types("launch", "-s", "2")
    yield somebody
    somebody.types("local", "clean")


def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not come true in {seconds:g} s"
        time.sleep(0.2)


def listed(user: User) -> list[dict[str, Any]]:
    """The jobs; what is waited for may be said before them, on standard error."""
    told = user.types("jobs", "--json")
    found: list[dict[str, Any]] = json.loads(told[told.index("[") :])
    return found


def test_the_commands_of_the_page_do_what_it_says(user: User, tmp_path: Path) -> None:
    first, second, *others = [words[1:] for words in typed() if "spark://" not in str(words)]
    told = user.types(*first)
    assert "sum 15.0" in told
    assert "project: 9 files" in told
    assert "not sent: .env (it may hold a secret)" in told
    assert re.search(r"\ntrain-\d{8}-\d{6} ended with status 0\n$", told)
    (target,) = (user.folder / "output").glob("train-*")
    assert (target / "result.txt").read_text() == "done"
    assert json.loads((target / "work/model.json").read_text()) == {"rate": 0.1}
    assert {one.name for one in target.iterdir()} == {"result.txt", "work", "spark-events", "job.log"}
    assert [one.name for one in (target / "work").iterdir()] == ["model.json"]

    told = user.types(*second)
    assert "0 bytes of all were new" in told
    *looks, package = others
    for words in looks:
        told = user.types(*words)
    made = [sys.executable, "-m", "sparknet.cli", *package]
    subprocess.run(
        made, cwd=user.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=120
    )
    assert "sparknet/__init__.py" in zipfile.ZipFile(user.folder / "sparknet.zip").namelist()
    assert json.loads(
        (sorted((user.folder / "output").glob("train-*"))[-1] / "work/model.json").read_text()
    ) == {"rate": 0.2}
    check_history(target / "spark-events", tmp_path)


def check_history(events: Path, tmp_path: Path) -> None:
    """A history server knows the job by its event log."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = f"-Dspark.history.fs.logDirectory=file:{events} -Dspark.history.ui.port={port}"
    env = {**os.environ, "SPARK_HISTORY_OPTS": options, "SPARK_LOCAL_IP": "127.0.0.1"}
    server = [str(SPARK / "bin/spark-class"), "org.apache.spark.deploy.history.HistoryServer"]
    log = (tmp_path / "log").open("w")
    with log, subprocess.Popen(server, env=env, stdout=log, stderr=log) as process:
        try:
            page = f"http://127.0.0.1:{port}/api/v1/applications"
            until(lambda: applications(page))
            (application,) = applications(page)
            assert application["name"].startswith("train-")
            assert application["attempts"][0]["completed"] is True
        finally:
            process.terminate()


def applications(page: str) -> Any:
    try:
        with urllib.request.urlopen(page, timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return []


@pytest.mark.parametrize("status", [1, 3, 130, 137])
def test_the_exit_status_is_the_jobs_own(user: User, status: int) -> None:
    # a program that ends before it asks for a Spark: only the status is looked at
    (user.folder / "status").mkdir(exist_ok=True)
    (user.folder / "status/main.py").write_text("import sys\nsys.exit(int(sys.argv[1]))\n")
    told = user.types("submit", "status", "--", str(status), status=status)
    assert re.search(rf"\nstatus-[\d-]+ ended with status {status}\n$", told)
    newest = listed(user)[-1]
    assert (newest["state"], newest["exit_code"], newest["ended_by"]) == ("failed", status, "program")


@contextmanager
def foreign_spark(folder: Path) -> Iterator[str]:
    """A Spark of somebody else's: a master and a worker on this machine."""
    env = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_NO_DAEMONIZE": "1"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address, start = f"spark://127.0.0.1:{port}", [str(SPARK / "bin/spark-class")]
    master = ["Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"]
    worker = [
        "Worker",
        "--host",
        "127.0.0.1",
        "--webui-port",
        "0",
        "-d",
        str(folder),
        "-c",
        "1",
        "-m",
        "1g",
        address,
    ]
    running = []
    with (folder / "log").open("w") as log:
        for kind, *words in (master, worker):
            command = [*start, f"org.apache.spark.deploy.{kind.lower()}.{kind}", *words]
            running.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
        try:
            yield address
        finally:
            for process in reversed(running):
                process.terminate()
                process.wait(30)


def test_the_same_command_runs_on_somebody_elses_spark(user: User, tmp_path: Path) -> None:
    (words,) = [words[1:] for words in typed() if "spark://" in str(words)]
    (user.folder / "foreign").mkdir()
    for name in ("train.py", "nets", "data"):
        (user.folder / "foreign" / name).symlink_to(user.folder / name)
    (user.folder / "foreign/tinything.py").write_text("ONE = 1\n")
    with foreign_spark(tmp_path) as address:
        words = [address if word.startswith("spark://") else word for word in words]
        words[words.index("train.py")] = "foreign/train.py"
        told = user.types(
            *words[: words.index("--")],
            "--env",
            "SHIFT=2",
            "--output",
            "elsewhere",
            *words[words.index("--") :],
            "--status",
            "4",
            status=4,
        )
    assert "sum 21.0" in told
    assert re.search(r"\ntrain-[\d-]+ ended with status 4\n$", told)
    assert (user.folder / "elsewhere/result.txt").read_text() == "done"
    assert "is for clusters of sparknet-ec2" in user.types(
        "submit", "train.py", "--master", "local[1]", "--queue", status=2
    )
