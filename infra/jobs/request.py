"""Request: what a user asks for with a job, as ``submit`` and ``spark-submit`` know it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from infra.errors import UsageError
from infra.program import Program

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MEMORY = re.compile(r"[1-9]\d*[kmgtKMGT]b?")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)  # s3a://bucket/a.jar, hdfs:/a.jar
#: what is decided by the cluster, or by an option of its own
RESERVED = ("spark.master", "spark.app.name", "spark.submit.deployMode")


@dataclass(frozen=True, kw_only=True)
class Request:
    """A program, its arguments, and what it needs.

    ``py_files``, ``files`` and ``jars`` are paths here, or addresses that Spark reads itself.
    ``workers``: how many of the cluster's it may use; None: all of them.
    Raises UsageError for what cannot be.
    """

    program: Program
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    requirements: Path | None = None
    py_files: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    jars: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    conf: Mapping[str, str] = field(default_factory=dict)
    driver_memory: str = ""
    executor_memory: str = ""
    workers: int | None = None
    is_queued: bool = False

    def __post_init__(self) -> None:
        for variable in self.env:
            if not VARIABLE.fullmatch(variable):
                raise UsageError(f"{variable!r} cannot be the name of an environment variable.")
        for option, memory in (("driver", self.driver_memory), ("executor", self.executor_memory)):
            if memory and not MEMORY.fullmatch(memory):
                raise UsageError(f"--{option}-memory {memory} is no size like 4g or 512m.")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--num-workers {self.workers}: a job needs at least one worker.")
        for key in self.conf:
            if key in RESERVED or not key.startswith("spark."):
                raise UsageError(f"--conf {key}: it is the cluster's to say, or no setting of Spark.")
        for option, paths in (("py-files", self.py_files), ("files", self.files), ("jars", self.jars)):
            _require_files(option, paths)

    @property
    def title(self) -> str:
        """What the job is called."""
        return self.name or self.program.name


def is_elsewhere(path: str) -> bool:
    """Whether Spark fetches it by itself, from where all nodes can."""
    return ELSEWHERE.match(path) is not None


def _require_files(option: str, paths: Iterable[str]) -> None:
    here = [path for path in paths if not is_elsewhere(path)]
    for path in here:
        if not Path(path).is_file():
            raise UsageError(f"There is no file {path} for --{option}.")
        if "," in path:
            raise UsageError(f"--{option} {path}: Spark takes a comma for the end of a name; rename it.")
    twice = [name for name, count in Counter(PurePosixPath(path).name for path in here).items() if count > 1]
    if twice:
        raise UsageError(f"--{option} has two files called {twice[0]}, and Spark would keep one of them.")
