"""How the tests are run: what every JVM is told, and which files the processes of pytest-xdist take first.

A file is the unit that a process takes. The longest come first, or one of them is still running when all else
is done; and the files that need the Spark of ``tests/sparknet/spark`` are one unit, so that it starts once.
"""

from __future__ import annotations

import os

import pytest
from xdist.remote import Producer

from tests.schedule import LongestFirst

# What a JVM compiles at its best pays off after minutes, and none of these runs for so long: it costs half of
# the processor time of a start of Spark.
SHORT_LIVED = "-XX:TieredStopAtLevel=1"


def pytest_configure() -> None:
    told = os.environ.get("JAVA_TOOL_OPTIONS", "")
    if SHORT_LIVED not in told:
        os.environ["JAVA_TOOL_OPTIONS"] = f"{told} {SHORT_LIVED}".strip()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LongestFirst | None:
    return LongestFirst(config, log) if config.getvalue("dist") == "loadfile" else None
