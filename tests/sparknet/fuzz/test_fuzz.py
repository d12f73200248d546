"""A few damaged files for every reader; ``python -m tests.sparknet.fuzz`` makes thousands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sparknet.fuzz.runner import READERS, run

CASES = 12


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    outcome = run(name, first=500_000, cases=CASES, folder=tmp_path / name)
    assert outcome.escaped == []
    assert outcome.well + outcome.refused == CASES
    assert outcome.refused


@pytest.mark.timeout(120)
def test_the_command_reads_the_same_cases_in_a_process_of_its_own(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.sparknet.fuzz", "--cases", "3", "--folder", str(tmp_path), "mean"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == "none escaped"
