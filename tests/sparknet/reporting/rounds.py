"""Rounds as ``train`` yields them, with numbers chosen by the test."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparknet.training import Report, Round, RoundResult, Scores


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
