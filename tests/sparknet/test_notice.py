"""The notice of a machine's end, as the machine's own agent puts it down."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from sparknet.notice import LEAVE_SECONDS, VARIABLE, Notice


def put_down(file: Path, **said: object) -> None:
    new = file.with_suffix(".new")
    new.write_text(json.dumps(said))
    new.rename(file)


def test_without_a_file_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    for notice in (Notice(), Notice(tmp_path / "notice"), Notice.of_environment()):
        assert [notice.leaves, notice.ends, notice.hands_in] == [False, False, False]


def test_a_worker_leaves_shortly_before_its_machine_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "notice"))
    notice = Notice.of_environment()
    put_down(tmp_path / "notice", action="terminate", time="2026-12-01T10:02:00Z", seconds=120)
    assert not notice.hands_in
    past = time.time() - 120 + LEAVE_SECONDS - 1
    os.utime(tmp_path / "notice", (past, past))  # it was written so long ago
    assert notice.leaves
    assert notice.hands_in
    assert not notice.ends
    assert notice.time == "2026-12-01T10:02:00Z"


def test_the_end_of_the_cluster_is_handed_in_for_at_once_and_nobody_leaves(tmp_path: Path) -> None:
    notice = Notice(tmp_path / "notice")
    put_down(tmp_path / "notice", action="end", seconds=120)
    assert notice.ends
    assert notice.hands_in
    assert not notice.leaves


def test_a_later_notice_takes_the_place_of_the_first(tmp_path: Path) -> None:
    notice, file = Notice(tmp_path / "notice"), tmp_path / "notice"
    put_down(file, action="terminate", seconds=3600)
    os.utime(file, (time.time() - 5,) * 2)
    assert not notice.hands_in
    put_down(file, action="end", seconds=100)
    assert notice.ends


@pytest.mark.parametrize("text", ["", "{", "[]", '{"action": "terminate", "seconds": "soon"}', "{}"])
def test_what_cannot_be_read_is_no_notice(tmp_path: Path, text: str) -> None:
    (tmp_path / "notice").write_text(text)
    notice = Notice(tmp_path / "notice")
    assert not notice.leaves
    assert not notice.ends
