"""Which tests run, and in which order the processes of pytest-xdist take them, by their markers alone.

A unit is what one process runs in one go: a file, or all tests of the Spark that some files share, so that it
starts once. The longest come first, or one of them is still running when all else is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).resolve().parent.parent

QUICK = "not spark and not rig and not gpu and not slow"
"""What a plain ``pytest`` runs, which names nothing."""

ALL = "not long"
"""What ``--all`` runs where nothing is named: not what takes minutes."""

BY_FIXTURE = {"spark": "spark", "rig": "rig"}
"""Whoever uses one of these fixtures has the marker."""

SECONDS = {"spark": 30, "rig": 10, "slow": 10}
"""What a test with the marker may take; one with none takes hardly any time."""


class ByUnit(LoadFileScheduling):
    """Gives each process that has nothing more to do the next unit in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(super()._split_scope(nodeid))


@cache
def unit_of(file: str) -> str:
    """What one process runs with this file: those who ask for the ``spark`` of one folder go together."""
    path = ROOT / file
    if path.exists() and "spark: SparkSession" in path.read_text(encoding="utf-8"):
        for folder in path.relative_to(ROOT).parents:
            conftest = ROOT / folder / "conftest.py"
            if conftest.exists() and "def spark(" in conftest.read_text(encoding="utf-8"):
                return f"the Spark of {folder}"
    return file


def mark(items: Iterable[pytest.Item]) -> None:
    """Give whoever uses a fixture of ``BY_FIXTURE`` its marker."""
    for item in items:
        for fixture in set(BY_FIXTURE) & set(getattr(item, "fixturenames", ())):
            item.add_marker(BY_FIXTURE[fixture])


def longest_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """``items`` by unit, the units that may take longest first."""
    seconds: Counter[str] = Counter()
    units = [unit_of(item.nodeid.split("::")[0]) for item in items]
    for item, unit in zip(items, units, strict=True):
        seconds[unit] += sum(SECONDS.get(one.name, 0) for one in item.iter_markers())
    order = sorted(range(len(items)), key=lambda number: (-seconds[units[number]], units[number]))
    return [items[number] for number in order]
