"""Noise: what Spark and its Java say in a job's log that is not about the job.

Spark's own lines are those of ``ami/spark/log4j2.properties``: date, level, class, message. Its errors, and
the warnings that explain why a job stands still or does a part of its work again, are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

OF_SPARK = re.compile(r"\d\d/\d\d/\d\d \d\d:\d\d:\d\d(?:\.\d+)? (TRACE|DEBUG|INFO|WARN|ERROR|FATAL) (.*)")
OF_A_STACK = re.compile(r"\s+at |\s*\.\.\. \d+ more|Caused by: |[a-z][\w.]*\.[A-Z]\w*(?:Exception|Error)\b")
WORTH_READING = re.compile(r"not accepted any resources|Lost task|Lost executor|No space left|OutOfMemory")
OF_JAVA = re.compile(
    r"WARNING: (?:Using incubator modules|A restricted method|java\.lang\.System::|Use --enable-native-access"
    r"|Restricted methods|A terminally deprecated|sun\.misc\.Unsafe|Please consider reporting)"
    r"|Using Spark's (?:default|.*) log4j profile|Setting default log level to"
    r"|To adjust logging level use|Picked up (?:_JAVA_OPTIONS|JAVA_TOOL_OPTIONS)"
    r"|:: (?:loading settings|resolving dependencies|resolution report|retrieving)"
)


class Noise:
    """Tells line by line what is noise, and counts it; a record of Spark may be of several lines."""

    def __init__(self) -> None:
        self.hidden = 0
        self._is_within = False  # a record that is hidden

    def has(self, line: str) -> bool:
        """Whether the next line of the log is noise."""
        is_noise = self._judged(line)
        self.hidden += is_noise
        return is_noise

    def _judged(self, line: str) -> bool:
        found = OF_SPARK.match(line)
        if found:
            level, message = found.groups()
            self._is_within = level not in ("ERROR", "FATAL") and not WORTH_READING.search(message)
            return self._is_within
        if self._is_within and OF_A_STACK.match(line):
            return True
        self._is_within = False
        return OF_JAVA.match(line) is not None


def without(lines: Iterable[str]) -> list[str]:
    """Those of the lines that are no noise."""
    noise = Noise()
    return [line for line in lines if not noise.has(line)]
