"""Whole runs on a real Spark: what is printed, what is left behind, and what an interruption leaves."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyspark
import pytest

from apps.MnistApp import main
from apps.solvers import load
from sparknet.exits import status_of
from tests.apps.run_app import APPS, environment, pack, run_app
from tests.bench.standalone import descendants, executors_below
from tests.sparknet.data import photographs

pytestmark = [pytest.mark.spark, pytest.mark.slow]

LINE = re.compile(
    r"round (\d+)/(\d+)  loss \d+\.\d{4}(  accuracy \d+\.\d % \(synthetic data\))?"
    r"  [\d,]+ images/s  \d\d:\d\d"
)
COLOUR_NET = """
name: "Colours"
layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "db" batch_size: 3 } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool"
        pooling_param { pool: AVE global_pooling: true } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "score" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""

CHECKPOINT = ("--checkpoint", "saved", "--checkpoint-every", "1")
SMALL = ("--data", "synthetic", "--tau", "2", "--batch-size", "20", "--workers", "2")


@dataclass(frozen=True)
class Run:
    """An app that has ended, and the folder it left its results in."""

    done: subprocess.CompletedProcess[str]
    output: Path
    mapped: frozenset[int] = frozenset()  # the processes that had files of "spill" in their memory

    @property
    def rounds(self) -> int:
        """How many it has on record."""
        return len((self.output / "metrics.jsonl").read_text().splitlines())


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Ctrl-C, in a run that saves nothing on its way and keeps its shards on disk."""
    folder = tmp_path_factory.mktemp("interrupted")
    (folder / "spill").mkdir()
    variables = environment(SPARK_LOCAL_DIRS=str(folder / "spill"))
    return signalled(folder, signal.SIGINT, variables, "--shard-memory", "1k", "--deterministic")


@pytest.fixture(scope="module")
def terminated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """SIGTERM, as from ``sparknet-ec2 cancel``, in a run that saves a checkpoint after every round."""
    folder = tmp_path_factory.mktemp("terminated")
    return signalled(folder, signal.SIGTERM, environment(), *CHECKPOINT)


@pytest.fixture(scope="module")
def whole(terminated: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two rounds more than the terminated run, in one go."""
    folder = tmp_path_factory.mktemp("whole")
    wanted = ("--rounds", str(terminated.rounds + 2), "--test-every", "2", "--output", "out")
    return Run(run_app("MnistApp", *SMALL, *wanted, folder=folder), folder / "out")


def signalled(folder: Path, sent: signal.Signals, variables: dict[str, str], *more: str) -> Run:
    """A run with no end that is sent a signal after its second round."""
    endless = ("--rounds", "100000", "--test-every", "0", *more)
    command = [sys.executable, str(APPS / "MnistApp.py"), *SMALL, *endless]
    with started(command, folder, variables, seconds=180) as app:
        assert app.stdout
        line = next((line for line in app.stdout if line.startswith("round 2/")), "")
        mapped = {pid for pid in descendants(app.pid) if is_mapped(folder / "spill", pid)}
        app.send_signal(sent)
        out, errors = app.communicate()
    assert line, f"the app ended before its second round: {errors}"
    done = subprocess.CompletedProcess(command, app.returncode, out, errors)
    return Run(done, folder, mapped=frozenset(mapped))


def test_a_run_prints_a_line_a_round_and_leaves_a_model_and_a_report(whole: Run) -> None:
    done, count = whole.done, whole.rounds
    assert done.returncode == 0, done.stderr
    first, training, page, *rounds, result, left = done.stdout.splitlines()
    assert "SYNTHETIC DATA" in first
    assert training.startswith("training LeNet on 2 workers")
    assert page.startswith("live page: http://127.0.0.1:")
    matches = [LINE.fullmatch(line) for line in rounds]
    assert all(matches), done.stdout
    assert [(m[1], m[2], bool(m[3])) for m in matches if m] == [
        (str(i), str(count), i % 2 == 0 or i == count) for i in range(1, count + 1)
    ]
    assert re.fullmatch(rf"accuracy \d+\.\d % \(synthetic data\) after {count} rounds, \d\d:\d\d", result)
    assert str(whole.output) in left
    check_output(whole.output, rounds=count)


def check_output(folder: Path, rounds: int) -> None:
    assert sorted(file.name for file in folder.iterdir()) == [
        "curve.png",
        "metrics.jsonl",
        "model.caffemodel",
        "report.html",
        "tensorboard",
    ]
    assert len(list((folder / "tensorboard").iterdir())) == 1
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["round"] for record in records] == list(range(1, rounds + 1))
    assert all(
        record["workers"] == 2 and record["images"] == 80 and record["synthetic"] for record in records
    )
    assert "(synthetic data)" in (folder / "report.html").read_text()
    net = load("lenet_solver.prototxt", (1, 28, 28), batch_size=1, test_batch_size=1)().net
    before = net.weights.clone()
    net.copy_from(folder / "model.caffemodel")
    assert np.isfinite(net.weights.numpy()).all()
    assert not np.array_equal(before.numpy(), net.weights.numpy())


def test_a_spark_that_does_not_start_is_reported(tmp_path: Path) -> None:
    done = run_app("MnistApp", *SMALL, folder=tmp_path, JAVA_HOME=str(tmp_path))
    assert done.returncode == 7
    assert "Error: Spark does not start" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_shard_past_the_memory_that_was_allowed_lies_on_the_spill_volume(interrupted: Run) -> None:
    assert len(interrupted.mapped) == 2
    assert "float32, deterministic" in (interrupted.output / "report.html").read_text()


def is_mapped(folder: Path, pid: int) -> bool:
    """Whether the process has mapped a file in ``folder`` that has no name there any more."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:  # it has just ended
        return False
    return any(f" {folder}/" in line and line.endswith("(deleted)") for line in maps)


def test_workers_that_do_not_come_in_time_are_an_error(tmp_path: Path) -> None:
    done = run_app("MnistApp", *SMALL, "--join-deadline", "0.01", folder=tmp_path)
    assert done.returncode == 7
    assert "Error: no worker that can work joined within 0.01 s" in done.stderr
    assert "--join-deadline" in done.stderr
    assert "Traceback" not in done.stderr


def test_photographs_are_read_by_the_workers_themselves(tmp_path: Path) -> None:
    photographs.put_zip(tmp_path / "pictures.zip", photographs.named(12))
    photographs.put_labels(tmp_path)
    (tmp_path / "solver.prototxt").write_text(
        f'net_param {{ {COLOUR_NET} }} base_lr: 0.001 lr_policy: "fixed"'
    )
    data = ("--data", "pictures.zip", "--labels", "labels.txt", "--solver", "solver.prototxt")
    wanted = ("--tau", "3", "--batch-size", "6", "--workers", "2", "--rounds", "3", "--test-every", "3")
    done = run_app("ImageNetApp", *data, *wanted, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "data: photographs in 1 archives or folders of pictures.zip, 4 to test on" in done.stdout
    # three plain colours: nothing else in the pictures tells the classes apart
    assert "accuracy 100.0 % after 3 rounds" in done.stdout
    assert "synthetic" not in done.stdout


def test_a_run_goes_on_from_its_checkpoint_bit_for_bit(
    terminated: Run,
    whole: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    count, folder = whole.rounds, tmp_path / "parts"
    shutil.copytree(terminated.output, folder)
    monkeypatch.chdir(folder)
    status, errors = refused(capsys, "--rounds", str(count))
    assert status == 2
    [last] = re.findall(r"saved holds a run that has come to round (\d+): add --resume", errors)
    assert terminated.rounds - int(last) in (0, 1)  # the signal may come between a round and its checkpoint
    wanted = (*CHECKPOINT, "--resume", "--rounds", str(count), "--profile", "1")
    resumed = run_app("MnistApp", *SMALL, *wanted, folder=folder)
    assert resumed.returncode == 0, resumed.stderr
    assert f"going on after round {last}, from saved" in resumed.stdout
    status, errors = refused(capsys, "--resume", "--rounds", str(count))
    assert (status, f"{count} rounds are done already" in errors) == (2, True)
    models = [(output / "model.caffemodel").read_bytes() for output in (folder, whole.output)]
    assert models[0] == models[1]
    records = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in records] == list(range(1, count + 1))
    traces = sorted((folder / "profile").iterdir())
    assert [trace.name.split("-attempt-")[0] for trace in traces] == ["worker-0", "worker-1"]
    for trace in traces:
        names = {
            event.get("name") for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
        }
        assert {"round 1 of the trace", "aten::convolution"} <= names


def refused(capsys: pytest.CaptureFixture[str], *wanted: str) -> tuple[int, str]:
    """Status and error of a run that does not come so far as to start Spark, in this process."""
    status = status_of(lambda: main.main([*SMALL, *CHECKPOINT, *wanted], standalone_mode=False))
    return status, capsys.readouterr().err


def test_spark_submit_of_an_app_from_a_zip_outlives_the_death_of_an_executor(tmp_path: Path) -> None:
    """Two executors with processes of their own have the packages from the zip alone; one is killed."""
    pack(tmp_path / "trainer.zip")
    shutil.copytree(APPS, tmp_path / "apps", ignore=shutil.ignore_patterns("__pycache__"))
    home = Path(pyspark.__file__).parent
    submit = [str(home / "bin" / "spark-submit"), "--master", "local-cluster[2,1,1024]"]
    wanted = ("--data", "synthetic", "--tau", "2", "--rounds", "40", "--test-every", "20", "--output", "out")
    command = [*submit, "--py-files", "trainer.zip", "apps/MnistApp.py", *wanted]
    variables = environment(SPARK_HOME=str(home), PYSPARK_PYTHON=sys.executable)
    with started(command, tmp_path, variables, seconds=240) as app:
        assert app.stdout
        training = next(line for line in app.stdout if line.startswith("training "))
        assert next(line for line in app.stdout if line.startswith("round 2/"))
        os.kill(executors_below(app.pid)[0], signal.SIGKILL)
        out, errors = app.communicate()
    assert app.returncode == 0, errors
    assert training.startswith("training LeNet on 2 workers")
    assert "round 40/40  loss" in out
    assert (tmp_path / "out" / "model.caffemodel").exists()
    records = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert min(json.loads(record)["workers"] for record in records) == 1


@contextmanager
def started(
    command: list[str], folder: Path, variables: dict[str, str], *, seconds: float
) -> Iterator[subprocess.Popen[str]]:
    """A process whose output is read line by line, killed after ``seconds``."""
    with subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as app:
        limit = threading.Timer(seconds, app.kill)
        limit.start()
        try:
            yield app
        finally:
            limit.cancel()


@pytest.mark.parametrize("how", ["interrupted", "terminated"])
def test_an_interrupted_run_keeps_its_last_whole_round(how: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(how)
    assert run.done.returncode == 130, run.done.stderr
    assert "Interrupted." in run.done.stderr
    assert "Traceback" not in run.done.stderr
    assert re.search(rf"not tested after {run.rounds} rounds", run.done.stdout)
    assert (run.output / "model.caffemodel").stat().st_size > 431_080 * 4
    assert (run.output / "report.html").exists()
