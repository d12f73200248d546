"""What Caffe's layers, nets and solvers CHECK, and the answer here to each: a table, and a page made of it.

    python -m tests.sparknet.caffe.checks      # writes sparknet/caffe/CHECKS.md

Each row of ``caffe_checks.toml`` has the place in BVLC Caffe, what is checked there, and a net or solver that
fails it. It is refused here by a ModelError or DataError, when it is built or first run, unless the row says
what is done instead. CHECKs that no prototxt can fail are not in it: of what the layer itself has set, of
CUDA's answers, and those of debug builds.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "tests" / "golden" / "caffe_checks.toml"
PAGE = ROOT / "sparknet" / "caffe" / "CHECKS.md"


@dataclass(frozen=True)
class Check:
    """``text`` is prototxt of a net, or, if it begins with "solver:", of a solver."""

    place: str
    checked: str
    text: str
    instead: str = ""


CHECKS = tuple(Check(**row) for row in tomllib.loads(TABLE.read_text())["check"])


def lines() -> Iterator[str]:
    """The page."""
    yield "# What Caffe checks, and the answer here"
    yield ""
    yield "Written by `python -m tests.sparknet.caffe.checks`; a test has a net or solver for every row and"
    yield "holds the answer. Where Caffe ends the process, a `ModelError` or `DataError` names layer or file"
    yield "when the net is built or first run. Checks that no prototxt can fail are left out."
    yield ""
    yield "| source of BVLC Caffe | what is checked | answer |"
    yield "|---|---|---|"
    for check in CHECKS:
        yield f"| {check.place} | {check.checked} | {check.instead or 'refused'} |"


if __name__ == "__main__":
    PAGE.write_text("\n".join(lines()) + "\n")
