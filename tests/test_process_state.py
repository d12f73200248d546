"""Whatever a test does to its process, the next one finds it as it was."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from tests.process_state import put_back


def test_environment_folder_and_loggers_are_put_back(tmp_path: Path) -> None:
    log, here = logging.getLogger("caffe"), Path.cwd()
    before = dict(os.environ), log.handlers[:], log.propagate, log.level
    with put_back():
        os.environ["SPARKNET_NEW"] = "1"
        del os.environ["PATH"]
        os.chdir(tmp_path)
        log.addHandler(logging.NullHandler())
        log.propagate = not log.propagate
        log.setLevel(logging.DEBUG)
    assert (dict(os.environ), log.handlers[:], log.propagate, log.level) == before
    assert Path.cwd() == here


def test_one_that_leaves_the_environment_changed() -> None:
    assert "SPARKNET_LEFT" not in os.environ
    os.environ["SPARKNET_LEFT"] = "1"


def test_the_one_after_it_does_not_see_that() -> None:
    assert "SPARKNET_LEFT" not in os.environ
