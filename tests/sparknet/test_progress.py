"""A run that goes on says how far it is, where somebody asked for it, and saves itself where it may."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from sparknet.errors import UsageError
from sparknet.reporting import progress
from sparknet.reporting.metrics import Record
from sparknet.trainer import resuming

RECORD = Record(
    round=1, rounds=40, tau=5, steps=5, images=640, loss=2.0, lr=0.1, accuracy=None, scores={},
    elapsed_seconds=10.0, seconds=2.0, compute_seconds=2.0, wait_seconds=0.0, exchange_seconds=0.0,
    joining_seconds=0.0, test_seconds=0.0, bytes_sent=0, bytes_received=0, workers=2,
)  # fmt: skip


def records(count: int) -> Sequence[Record]:
    """Rounds of four seconds each, tested every tenth."""
    return [
        replace(
            RECORD,
            round=number,
            elapsed_seconds=10.0 + 4 * number,
            accuracy=number / 100 if number % 10 == 0 else None,
        )
        for number in range(1, count + 1)
    ]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / "progress.json"))
    return tmp_path / "progress.json"


def test_the_state_is_that_of_the_last_round_with_the_last_accuracy(file: Path) -> None:
    progress.write(records(25))
    state = json.loads(file.read_text())
    assert (state["round"], state["rounds"], state["loss"], state["accuracy"]) == (25, 40, 2.0, 0.2)
    assert state["images_per_second"] == 320.0
    assert state["seconds_left"] == pytest.approx(4 * 15)
    assert datetime.fromisoformat(state["at"]).tzinfo is not None


def test_the_pace_is_that_of_the_last_rounds() -> None:
    slow = [replace(one, elapsed_seconds=100.0 * one.round) for one in records(10)]
    fast = [replace(one, elapsed_seconds=1000 + one.round) for one in records(40)[10:]]
    assert progress.seconds_left([*slow, *fast[:25]]) == pytest.approx(5)
    assert progress.seconds_left(records(1)) is None
    assert progress.seconds_left(records(40)) == 0


def test_a_loss_that_is_no_number_can_be_said(file: Path) -> None:
    progress.write([replace(RECORD, loss=None)])
    assert json.loads(file.read_text())["loss"] is None


def test_without_a_place_and_on_a_full_disk_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(progress.VARIABLE, raising=False)
    progress.write(records(3))
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / "no folder" / "progress.json"))
    progress.write(records(3))
    assert list(tmp_path.iterdir()) == []


def test_runs_without_a_place_are_saved_in_folders_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(resuming.VARIABLE, raising=False)
    assert resuming.automatic() is None
    monkeypatch.setenv(resuming.VARIABLE, f"{tmp_path}/job/")
    first, second = resuming.automatic(), resuming.automatic()
    assert first is not None
    assert second is not None
    begin, _, number = first.folder.rpartition("-")
    assert (begin, second.folder) == (f"{tmp_path}/job/run", f"{begin}-{int(number) + 1}")
    assert (first.every, first.seconds, first.at_end) == (None, 600, False)
    monkeypatch.setenv(resuming.SECONDS_VARIABLE, "5")
    third = resuming.automatic()
    assert third is not None
    assert third.seconds == 5
    monkeypatch.setenv(resuming.SECONDS_VARIABLE, "soon")
    with pytest.raises(UsageError, match="SPARKNET_CHECKPOINT_SECONDS=soon is no number"):
        resuming.automatic()
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(resuming.automatic()))
    thread.start()
    thread.join()
    assert found == [None]
