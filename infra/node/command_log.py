"""Command log: all that was run on each node and all that it said, in a file a node on this machine.

What is passed on standard input or in the environment is left out: it may be a secret.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from infra.errors import HostError, shorten
from infra.node.host import Host, LeftOut, Named, Result

COMMAND_CHARACTERS = 400
FOLDER = "logs"


class Identified(Named, Protocol):
    """Anything that stands for a node and knows its instance id."""

    @property
    def id(self) -> str: ...


N = TypeVar("N", bound=Identified)


def folder_of(home: Path, region: str, cluster: str) -> Path:
    """Where the files of a cluster's nodes are."""
    return home / FOLDER / region / cluster


def logged(connect: Callable[[N], Host], folder: Path) -> Callable[[N], Host]:
    """``connect``, with a file below ``folder`` for each node."""

    def connect_and_log(node: N) -> Host:
        return LoggingHost(connect(node), folder / f"{node.name}-{node.id}.log")

    return connect_and_log


class LoggingHost:
    """A host whose every command goes to ``file`` as well. See ``infra.node.host.Host``."""

    def __init__(self, host: Host, file: Path) -> None:
        self._host, self._file = host, file
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # commands may name what is private

    @property
    def name(self) -> str:
        return self._host.name

    @property
    def root(self) -> PurePosixPath:
        return self._host.root

    def run(
        self,
        command: str,
        *,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout_seconds: float,
        on_line: Callable[[str], None] | None = None,
        check: bool = True,
    ) -> Result:
        # by lines, so that a launch that hangs can be watched with tail -f
        with self._file.open("a", encoding="utf-8", buffering=1) as log:
            log.write(f"{_now()} $ {shorten(command, COMMAND_CHARACTERS)}\n")

            def write_line(line: str) -> None:
                log.write(f"    {line}\n")
                if on_line:
                    on_line(line)

            try:
                result = self._host.run(
                    command,
                    env=env,
                    stdin=stdin,
                    timeout_seconds=timeout_seconds,
                    on_line=write_line,
                    check=check,
                )
            except HostError as error:
                log.write(f"{_now()} {type(error).__name__}: {shorten(error.said, COMMAND_CHARACTERS)}\n")
                raise
            if result.exit_status:
                log.write(f"{_now()} status {result.exit_status}\n")
            return result

    def put(self, source: Path, target: PurePosixPath) -> None:
        self._note(f"copies {source} to {target}")
        self._host.put(source, target)

    def get(self, source: PurePosixPath, target: Path) -> tuple[LeftOut, ...]:
        self._note(f"copies {source} to {target} here")
        return self._host.get(source, target)

    def pipe(
        self, command: str, *, source: Iterable[bytes], sink: Callable[[bytes], None], silence_seconds: float
    ) -> None:
        self._note(f"| {shorten(command, COMMAND_CHARACTERS)}")
        self._host.pipe(command, source=source, sink=sink, silence_seconds=silence_seconds)

    def close(self) -> None:
        self._host.close()

    def _note(self, text: str) -> None:
        with self._file.open("a", encoding="utf-8") as log:
            log.write(f"{_now()} {text}\n")


def _now() -> str:
    return time.strftime("%H:%M:%S")
