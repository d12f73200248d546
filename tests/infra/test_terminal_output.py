"""What a person sees of jobs: no wider than the terminal, without Spark's own noise, and never in silence."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from infra.cli import format, transfer, waiting
from infra.cli.job_output import JobOutput
from infra.cli.transfer import TransferDisplay
from infra.jobs import Moved
from infra.jobs.noise import Noise, without
from tests.infra.terminal import Terminal

LOG = """\
WARNING: Using incubator modules: jdk.incubator.vector
26/11/30 10:15:00 WARN SparkConf: A setting of yours is old
26/11/30 10:15:01 WARN TaskSetManager: Lost task 1.0 in stage 0.0 (TID 1) (10.0.0.4 executor 0): gone
26/11/30 10:15:02 WARN HeartbeatReceiver: Nothing came
java.lang.IllegalStateException: no
\tat org.apache.spark.Heart.beat(Heart.scala:1)
\t... 3 more
Caused by: java.io.IOException: broken
round 1/2  loss 1.5
26/11/30 10:15:03 ERROR TaskSchedulerImpl: Lost executor 0
\tat org.apache.spark.X.y(X.scala:1)
WARNING: mine
  File "train.py", line 3
"""
KEPT = [2, 8, 9, 10, 11, 12]
ROOT = Path(__file__).resolve().parents[2]
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def test_noise_of_spark_is_left_out_with_its_stack_and_the_rest_is_kept() -> None:
    lines = LOG.splitlines()
    assert without(lines) == [lines[number] for number in KEPT]
    noise = Noise()
    assert [number for number, line in enumerate(lines) if not noise.has(line)] == KEPT
    assert noise.hidden == len(lines) - len(KEPT)


def test_raw_output_is_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    output = JobOutput(is_raw=True)
    for line in LOG.splitlines():
        output.line(line)
    assert capsys.readouterr().out == LOG
    assert output.hidden == 0


@pytest.mark.parametrize("columns", [30, 60, 200])
@pytest.mark.parametrize("colour", [True, False])
def test_a_table_is_no_wider_than_the_terminal_and_loses_nothing(
    columns: int, colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    rows = [("a-job-with-a-long-name-20261130-101500", "running", "[red]", "2026-11-30T10:15:00Z")]
    drawn = format.fitted_table(("job", "state", "exit", "started"), rows, columns=columns)
    plain = ESCAPES.sub("", drawn).splitlines()
    assert max(map(len, plain)) <= columns
    assert "[red]" in "".join(plain) or columns == 30
    kept = "".join(re.findall(r"[\w\[\]:-]", "".join(plain)))
    assert sum(kept.count(letter) for letter in "_z") == sum(
        "".join(rows[0]).count(letter) for letter in "_z"
    )
    assert len(kept) == len("jobstateexitstarted" + "".join(rows[0]))
    assert ("\033[3" in drawn) is False


def test_a_bar_of_rounds_stays_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    output = JobOutput(is_terminal=True)
    output.line("round 3/6  loss 1.5  accuracy 59.7 %  2,085 images/s  01:14")
    assert len(capsys.readouterr().out.lstrip("\r")) == 39


def moved(share: float) -> Moved:
    return Moved(files=int(10 * share), all_files=10, bytes=int(2e9 * share), all_bytes=int(2e9))


def test_a_copy_that_takes_long_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with TransferDisplay("fetching", is_terminal=False) as display:
        display.moved(moved(0.1))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(transfer, "QUIET_SECONDS", 0.0)
    with TransferDisplay("fetching", is_terminal=False) as display:
        display.moved(moved(0.5))
        display.moved(moved(0.6))
    assert capsys.readouterr().err == "fetching: 1.0 GB of 2.0 GB, 5 of 10 files\n"


COPY = """
import sys, time
sys.path.insert(0, {root!r})
from infra.cli import transfer
from infra.jobs import Moved
transfer.QUIET_SECONDS = 0.0
with transfer.TransferDisplay("fetching a-job-20261130-101500") as display:
    for share in range(5):
        display.moved(Moved(files=share, all_files=4, bytes=share * 10**9 // 2, all_bytes=2 * 10**9))
        time.sleep(0.2)
print("done")
"""


@pytest.mark.parametrize("columns", [40, 120])
@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}], ids=["colours", "NO_COLOR"])
def test_a_copy_is_a_bar_on_a_terminal(columns: int, env: dict[str, str]) -> None:
    terminal = Terminal(COPY.format(root=str(ROOT)), columns=columns, lines=20, env=env)
    assert terminal.close() == 0
    assert "2.0/2.0 GB" in CONTROLS.sub("", terminal.said)
    assert ("fetching" in terminal.said) == (columns == 120)
    assert ("\033[3" in terminal.said) == (not env)
    for line in re.split(r"[\r\n]+", CONTROLS.sub("", terminal.said)):
        assert len(line) <= columns


def test_a_wait_says_what_it_waits_for_once_it_is_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "QUIET_SECONDS", 0.05)
    with waiting.waiting("short"):
        pass
    with waiting.waiting("looking at the disks"):
        time.sleep(1)
    assert capsys.readouterr().err == "looking at the disks ...\n"


def test_sizes_are_told_in_few_digits() -> None:
    assert [format.byte_size(count) for count in (0, 1, 999, 12_345, 2_500_000, 2_100_000_000)] == [
        "0 bytes",
        "1 byte",
        "999 bytes",
        "12 kB",
        "2 MB",
        "2.1 GB",
    ]
