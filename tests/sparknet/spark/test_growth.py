"""A standalone cluster grows and shrinks while a job trains on it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

pytestmark = [pytest.mark.slow, pytest.mark.spark]


def test_a_host_that_joins_takes_up_a_shard_and_leaves_it_to_the_others_when_it_is_killed() -> None:
    """Of three shards on one slot; the program itself waits until every record was read in each state."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.sparknet.spark.growth"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    alone, grown, shrunk = (json.loads(line) for line in ran.stdout.splitlines())
    assert alone["hosts"] == [0]
    assert sorted(grown["hosts"]) == [0, 1]
    assert shrunk["hosts"] == [0]
    assert "Exception" not in ran.stderr
