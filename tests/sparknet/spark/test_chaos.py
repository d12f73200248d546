"""The benchmark ``chaos``, shortened: machines and drivers are killed, and training does not mind much."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.driver_kills import kill_drivers

ROOT = Path(__file__).resolve().parents[3]

pytestmark = [pytest.mark.slow, pytest.mark.spark]


def bench(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"tests.bench.{name}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_machines_may_be_killed_stopped_and_slowed() -> None:
    """Twenty seconds are too few to learn all there is: what remains to learn may be ten points."""
    wanted = ("--seconds", "20", "--hosts", "2", "--data", "synthetic", "--points", "10", "--here")
    ran = bench("chaos", *wanted)
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    assert re.search(r"what happened: .*(kill|stop|slow) (python|executor|host)", said), said
    assert "Exception" not in said


def test_goodput_is_told_of_what_is_there() -> None:
    """How high it is shows in ten minutes; that it can be reckoned, in seconds."""
    ran = bench("goodput", *("--seconds", "15", "--calm", "5", "--hosts", "2", "--data", "synthetic"))
    said = ran.stdout + ran.stderr
    assert ran.returncode in (0, 1), said
    assert "Traceback" not in said
    (there,) = re.findall(r"^disturbed: .*; of 2: ([\d.]+) machines there, ([\d.]+) workers live", said, re.M)
    assert 0 < float(there[1]) <= float(there[0]) <= 2, said
    assert re.search(r"^goodput [\d.]+, aim 0.88; ", said, re.M), said


def test_a_driver_may_be_killed_at_any_point() -> None:
    assert kill_drivers(2, seed=4) is None
