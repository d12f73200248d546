"""Rounds as ``train`` yields them, with numbers chosen by the test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sparknet.reporting.metrics import Record
from sparknet.reporting.roster import WorkerRow
from sparknet.reporting.run import Run
from sparknet.training import Report, Round, RoundResult, Scores
from sparknet.usage import Usage


def made_round(
    number: int = 12, rounds: int = 100, *, accuracy: float | None = None, **changes: Any
) -> Round:
    """Two workers, 10 steps of 100 images each, 2 s in all: 0.1 s to join, 1.5 s of computing at most."""
    losses = changes.pop("losses", (1.8, 1.9))
    reports = tuple(
        Report(
            member=member,
            steps=10,
            images=1000,
            loss=loss,
            lr=0.001,
            iteration=10 * number,
            position=number,
            seconds=1.5 - member,
        )
        for member, loss in enumerate(losses)
    )
    scores = (
        Scores(records=10, sums={"accuracy": 10 * accuracy, "loss": 17.0}) if accuracy is not None else None
    )
    result = RoundResult(
        mean=np.zeros(3, np.float32), reports=reports, joining_seconds=0.1, bytes_sent=24, bytes_received=12
    )
    values: dict[str, Any] = {
        "number": number,
        "rounds": rounds,
        "tau": 10,
        "outcome": result.mean,
        "result": result,
        "seconds": 2.0,
        "scores": scores,
        "test_seconds": 0.5 if scores else 0.0,
    }
    return Round(**{**values, **changes})


def made_usage(**changes: Any) -> Usage:
    """Of a worker on a machine of four cores and 16 GiB, with a GPU."""
    values: dict[str, Any] = {
        "host": "ip-10-0-0-7",
        "process": 812,
        "cores": 4,
        "busy_cores": 3.2,
        "load": 0.85,
        "memory": 2 << 30,
        "used_memory": 6 << 30,
        "total_memory": 16 << 30,
        "records": 12_500,
        "held_bytes": 38 << 20,
        "spilled_bytes": 0,
        "spill_free": 90 << 30,
        "received": 2e6,
        "sent": 1e6,
        "gpu": "NVIDIA L4",
        "gpu_load": 0.87,
        "gpu_memory": 4 << 30,
        "gpu_total_memory": 22 << 30,
    }
    return Usage(**{**values, **changes})


def made_record(number: int, rounds: int = 10, *, tested: bool = True, **changes: Any) -> Record:
    """Of a run that tests every five rounds, three seconds a round."""
    accuracy = number / (2 * rounds) if tested and number % 5 == 0 else None
    done = made_round(number, rounds, accuracy=accuracy)
    return replace(Record.of(done, elapsed_seconds=3.0 * number), **changes)


def made_run(rounds: int = 10, **changes: Any) -> Run:
    """A run with something in every part of its page."""
    records = [made_record(number, rounds) for number in range(1, rounds + 1)]
    who = "worker 1 (attempt 1, ip-10-0-0-7, process 812)"
    records[0] = replace(records[0], joined=(f"{who} with 12,500 records",))
    records[5] = replace(records[5], lost=(f"{who}: the connection was lost",))
    records[6] = replace(records[6], notes=(f"{who} took 4.10 s for 10 steps, 2.7 times the others' median",))
    rows = [
        WorkerRow(
            number=number,
            state="training",
            name=f"worker {number}",
            round=rounds,
            shard=number,
            seconds=1.5,
            data_seconds=0.02,
            usage=made_usage(host=f"ip-10-0-0-{number}"),
        )
        for number in range(2)
    ]
    values: dict[str, Any] = {
        "title": "cifar10_quick",
        "settings": {"tau": "10", "data": "<script>alert(1)</script>"},
        "records": records,
        "workers": rows,
        "versions": {"Python": "3.11.7"},
    }
    return Run(**{**values, **changes})
