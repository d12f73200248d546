"""A trace holds the rounds it was asked for, and what was computed in them."""

from __future__ import annotations

import gzip
import json
import warnings
from typing import Any

import pytest
import torch

from sparknet.traces import Tracer


def events(trace: bytes | None) -> list[dict[str, Any]]:
    assert trace is not None
    found: list[dict[str, Any]] = json.loads(gzip.decompress(trace))["traceEvents"]
    return found


def traced(rounds: int, of: int) -> Tracer:
    tracer = Tracer(rounds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of what this machine cannot profile
        for _ in range(of):
            with tracer.round():
                torch.ones(8, 8).mm(torch.ones(8, 8))
        tracer.finish()
    return tracer


@pytest.mark.parametrize(("asked", "of", "got"), [(2, 5, 2), (3, 3, 2)], ids=["bounded", "cut-short"])
def test_the_rounds_after_the_first_are_traced(asked: int, of: int, got: int) -> None:
    names = [event.get("name", "") for event in events(traced(asked, of).trace) if event.get("ph") == "X"]
    assert [name for name in names if name.startswith("round ")] == [
        f"round {number} of the trace" for number in range(1, got + 1)
    ]
    assert names.count("aten::mm") == got


def test_without_rounds_there_is_no_trace() -> None:
    assert traced(0, 3).trace is None
    assert traced(2, 1).trace is None
