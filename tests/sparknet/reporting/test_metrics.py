from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from sparknet.errors import DataError, UsageError
from sparknet.reporting import metrics
from sparknet.reporting.metrics import Log, Record
from tests.sparknet.reporting.rounds import made_round


def record(*, synthetic: bool = False, elapsed: float = 31.7, **options: object) -> Record:
    return Record.of(made_round(**options), elapsed_seconds=elapsed, synthetic=synthetic)  # type: ignore[arg-type]


def test_the_progress_line_is_the_one_agreed_on() -> None:
    assert record().line == "round 12/100  loss 1.8500  1,053 images/s  00:31"


def test_a_tested_round_shows_its_accuracy() -> None:
    assert record(accuracy=0.4123).line == (
        "round 12/100  loss 1.8500  accuracy 41.2 %  1,053 images/s  00:31"
    )


def test_accuracy_on_drawn_pictures_says_so() -> None:
    assert "accuracy 41.2 % (synthetic data)  " in record(accuracy=0.4123, synthetic=True).line


def test_the_line_begins_as_the_submitter_expects() -> None:
    assert re.match(r"round (\d+)/(\d+)\b", record().line)


def test_a_loss_that_is_not_a_number_is_shown_and_can_still_be_written(tmp_path: Path) -> None:
    broken = record(losses=(math.nan, 1.0))
    assert "loss nan" in broken.line
    with Log(tmp_path / "metrics.jsonl") as log:
        log.write(broken)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] is None


def test_an_hour_and_more_is_shown_with_hours() -> None:
    assert record(elapsed=3725).line.endswith("  1:02:05")


def test_records_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    written = [record(number=1), record(number=2, accuracy=0.5, synthetic=True)]
    with Log(tmp_path / "new" / "metrics.jsonl") as log:
        for one in written:
            log.write(one)
    assert metrics.read(tmp_path / "new" / "metrics.jsonl") == written


def test_a_record_is_on_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with Log(tmp_path / "metrics.jsonl") as log:
        log.write(record())
        assert len(metrics.read(tmp_path / "metrics.jsonl")) == 1


def test_a_new_run_begins_the_file_anew(tmp_path: Path) -> None:
    for _ in range(2):
        with Log(tmp_path / "metrics.jsonl") as log:
            log.write(record())
    assert len(metrics.read(tmp_path / "metrics.jsonl")) == 1


def test_a_last_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with Log(file) as log:
        log.write(record(number=1))
        log.write(record(number=2))
    file.write_text(file.read_text()[:-30])
    assert [one.round for one in metrics.read(file)] == [1]


def test_a_broken_line_in_the_middle_is_an_error_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with Log(file) as log:
        log.write(record())
    file.write_text("{}\n" + file.read_text())
    with pytest.raises(DataError, match=r"metrics\.jsonl:1 is no record"):
        metrics.read(file)


def test_a_field_of_a_later_version_does_not_disturb(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with Log(file) as log:
        log.write(record())
    file.write_text(json.dumps({**json.loads(file.read_text()), "added_later": 1}) + "\n")
    assert metrics.read(file) == [record()]


def test_an_output_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written"):
        Log(tmp_path / "file" / "metrics.jsonl")
