"""Sessions that somebody else has made: which Python their tasks run in, and what their errors say."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from sparknet.spark.jobs import _first_line
from sparknet.spark.session import use_this_python


@pytest.mark.parametrize(
    ("given", "master", "runs"),
    [
        ("python3", "local[2]", sys.executable),
        ("python3", "spark://host:7077", "python3"),
        ("/opt/python", "local[2]", "/opt/python"),
    ],
)
def test_tasks_of_this_machine_run_in_this_python_unless_another_was_chosen(
    given: str, master: str, runs: str
) -> None:
    context = SimpleNamespace(pythonExec=given, master=master)
    use_this_python(context)  # type: ignore[arg-type]
    assert context.pythonExec == runs


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "An exception was thrown from the Python worker:\nTraceback (most recent call last):\n"
            "  File \"a.py\", line 1, in <module>\nModuleNotFoundError: No module named 'torch'\n SQLSTATE",
            "ModuleNotFoundError: No module named 'torch'",
        ),
        ("An error occurred while calling o1.x.\n: java.lang.Error: full\n\tat a.b", "java.lang.Error: full"),
        ("one line", "one line"),
    ],
)
def test_the_line_of_an_error_that_says_something_is_the_one_that_is_shown(text: str, says: str) -> None:
    assert _first_line(RuntimeError(text)) == says
