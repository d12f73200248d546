"""Whatever Caffe's CHECKs refuse is refused here, or the table says what is done instead."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from sparknet.caffe import schema
from sparknet.caffe.net import Net
from sparknet.caffe.solver import Solver
from sparknet.errors import DataError, ModelError
from tests.sparknet.caffe.checks import CHECKS, PAGE, Check, lines


def build_and_run(text: str) -> None:
    """The net or the solver of ``text``, through one iteration."""
    if text.startswith("solver:"):
        Solver.for_param(schema.parse_solver(text.removeprefix("solver:"))).step(1)
    else:
        Net(schema.parse_net(text), schema.TRAIN).forward()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.place}: {check.checked}")
def test_what_caffe_refuses_is_refused(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(action="ignore"):
        if check.instead:
            build_and_run(check.text)
            return
        with pytest.raises((ModelError, DataError)) as caught:
            build_and_run(check.text)
    assert str(caught.value)


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == "\n".join(lines()) + "\n", "python -m tests.sparknet.caffe.checks"
