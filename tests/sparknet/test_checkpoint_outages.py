"""A store that is away for a while costs no training: it is tried again, and given up when it stays away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

from sparknet import checkpoint, storage
from sparknet.checkpoint import Checkpoints
from sparknet.errors import CheckpointError, UsageError
from sparknet.local import LocalWorkers
from sparknet.outer import Average
from sparknet.storage import within
from sparknet.training import Round, Settings, train
from tests.sparknet.flaky_s3 import FlakyS3, flaky_s3
from tests.sparknet.small import pictures, small_recipe
from tests.sparknet.test_checkpoint import checkpoint_of, saved

FAULTS = ["503", "500", "403", "expired", "silence"]
MEANT = {
    "503": "asks for fewer requests",
    "500": "internal error",
    "403": "access is denied",
    "expired": "the credentials have expired: renew them",
    "silence": "does not answer",
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyS3]:
    monkeypatch.setattr(storage, "_REQUEST_SECONDS", 1.0)
    monkeypatch.setattr(storage, "_ATTEMPTS", 1)
    monkeypatch.setattr(checkpoint, "_FIRST_PAUSE", 0.01)
    with flaky_s3(monkeypatch) as made:
        yield made


def trained(checkpoints: Checkpoints, rounds: int, before: Any = lambda _: None) -> list[bool]:
    """Which of the rounds were saved after; ``before`` is called with the number of each that is to be."""
    outer, due = Average(), []
    with LocalWorkers(small_recipe(), [pictures()]) as local:
        for done in train(local, Settings(rounds=rounds, tau=1)):
            before(done.number)
            due.append(checkpoints.after(done, local, outer))
    return due


@pytest.mark.parametrize("fault", FAULTS)
def test_training_goes_on_while_a_store_fails_and_saves_as_soon_as_it_is_back(
    fault: str, server: FlakyS3, caplog: pytest.LogCaptureFixture
) -> None:
    def before(number: int) -> None:
        server.fault = fault if 4 <= number < 7 else ""
        time.sleep(0.05)  # longer than the pauses between tries

    checkpoints = Checkpoints("s3://runs/a", every=2, patience=60)
    due = trained(checkpoints, 9, before)
    assert due == [False, True, False, False, False, False, True, True, True]
    assert MEANT[fault] in caplog.text
    assert "s3://runs/a: round 7 is saved, after" in caplog.text
    latest = checkpoints.latest()
    assert latest is not None
    assert latest.round == 9


def test_a_bucket_may_be_gone_for_a_while(server: FlakyS3, caplog: pytest.LogCaptureFixture) -> None:
    client = boto3.client("s3")

    def before(number: int) -> None:
        if number == 2:
            client.delete_bucket(Bucket="runs")
        elif number == 4:
            client.create_bucket(Bucket="runs")
        time.sleep(0.05)

    due = trained(Checkpoints("s3://runs/a", every=2, patience=60), 5, before)
    assert due == [False, False, False, True, True]
    assert "there is no such bucket" in caplog.text


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_stays_away_ends_the_run_and_the_last_round_is_tried_till_then(
    fault: str, server: FlakyS3
) -> None:
    server.fault = fault
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=MEANT[fault]) as error:
        trained(Checkpoints("s3://runs/a", every=10, patience=1.5), 2)
    assert "--checkpoint-patience" in str(error.value)
    assert 1.5 <= time.monotonic() - started < 15
    assert error.value.exit_status == 7


def test_without_patience_the_first_failure_is_the_end(server: FlakyS3) -> None:
    server.fault = "503"
    with pytest.raises(CheckpointError, match="round 1 could not be saved"):
        trained(Checkpoints("s3://runs/a", patience=0), 1)
    with pytest.raises(UsageError, match="patience"):
        Checkpoints("s3://runs/a", patience=-1)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("only", ["listing", "reading"])
def test_a_store_that_is_away_is_not_taken_for_an_empty_or_an_older_one(
    fault: str, only: str, server: FlakyS3
) -> None:
    """Or a run would begin anew where it should go on, and remove what it had saved."""
    checkpoints = Checkpoints("s3://runs/a")
    for number in (1, 2):
        checkpoints.save(checkpoint_of(number))
    server.fault = fault
    server.only = lambda request: ("list-type" in request["QUERY_STRING"]) == (only == "listing")
    with pytest.raises(CheckpointError, match=r"s3://runs/a cannot be read"):
        checkpoints.latest()
    server.fault = ""
    latest = checkpoints.latest()
    assert latest is not None
    assert latest.round == 2


def test_a_bucket_that_is_not_there_is_told_before_anything_is_trained(server: FlakyS3) -> None:
    with pytest.raises(CheckpointError, match=r"s3://nobody/x cannot be read: there is no such bucket"):
        Checkpoints("s3://nobody/x").latest()


def test_renewed_credentials_are_read_again(
    server: FlakyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"

    def renew(key: str) -> None:
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")

    renew("old")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    checkpoints = Checkpoints("s3://runs/a", patience=60)
    server.fault = "expired"
    server.only = lambda request: "Credential=old/" in request.get("HTTP_AUTHORIZATION", "")

    def before(number: int) -> None:
        if number == 3:
            renew("new")
        time.sleep(0.05)

    assert trained(checkpoints, 4, before) == [False, False, True, True]
    server.fault = ""


def test_a_disk_that_does_not_answer_is_waited_for_no_longer_than_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_CALL_SECONDS", 0.2)
    checkpoints, free = saved(tmp_path, 1), threading.Event()
    monkeypatch.setattr(checkpoints.storage, "publish", lambda *_: free.wait(20))
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=r"round 2 could not be saved: saving it did not end within"):
        checkpoints.save(checkpoint_of(2))
    assert time.monotonic() - started < 5
    free.set()


def test_what_is_waited_for_returns_and_raises_as_if_it_were_not() -> None:
    assert within(5, lambda: 3, "counting") == 3
    with pytest.raises(KeyError, match="gone"):
        within(5, lambda: {}["gone"], "looking")


def test_a_round_that_failed_is_not_saved_as_an_older_one(server: FlakyS3) -> None:
    """What is saved after an outage is the state of that moment."""
    weights: dict[int, np.ndarray] = {}
    checkpoints, outer = Checkpoints("s3://runs/a", every=2, keep=9, patience=60), Average()

    def seen(done: Round) -> None:
        server.fault = "503" if done.number == 2 else ""
        weights[done.number] = done.weights.copy()
        time.sleep(0.05)

    with LocalWorkers(small_recipe(), [pictures()]) as local:
        for done in train(local, Settings(rounds=3, tau=1)):
            seen(done)
            checkpoints.after(done, local, outer)
    latest = checkpoints.latest()
    assert latest is not None
    assert latest.round == 3
    assert np.array_equal(latest.weights, weights[3])
