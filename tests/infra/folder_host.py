"""FolderHost: a host that is a folder of this machine, where the scripts of ami/job are run for real."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from infra.errors import CommandFailed
from infra.jobs import Request
from infra.node import bootstrap
from infra.node.feeder import Feeder
from infra.node.host import LeftOut, Result
from infra.program import Program, find

SPARK = """\
#!/bin/bash
printf "%s\\n" "$@"
echo to stderr >&2
exit "${WANTED_STATUS:-0}"
"""


class FolderHost:
    """A host that is a folder of this machine; its Spark says what it was given, or is ``spark``."""

    def __init__(self, root: Path, spark: str = SPARK) -> None:
        self.name, self.root = "master", PurePosixPath(root)
        for folder in ("opt/sparknet/spark/bin", "opt/sparknet/venv/bin", "var/lib/sparknet/jobs"):
            (root / folder).mkdir(parents=True)
        (root / bootstrap.ON_NODE).symlink_to(bootstrap.AMI)
        submit = root / "opt/sparknet/spark/bin/spark-submit"
        submit.write_text(spark)
        submit.chmod(0o755)
        python = root / "opt/sparknet/venv/bin/python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)

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
        ran = subprocess.run(
            ["bash", "-c", command], input=stdin or "", capture_output=True, text=True, timeout=30
        )
        for line in ran.stdout.splitlines() if on_line else ():
            on_line(line)  # type: ignore[misc]
        if check and ran.returncode:
            raise CommandFailed(self.name, command, ran.returncode, ran.stderr)
        return Result(exit_status=ran.returncode, stdout=ran.stdout, stderr=ran.stderr)

    def put(self, source: Path, target: PurePosixPath) -> None:
        subprocess.run(["cp", "-r", str(source), str(target)], check=True)

    def get(self, source: PurePosixPath, target: Path) -> tuple[LeftOut, ...]:
        subprocess.run(["cp", "-rT", str(source), str(target)], check=True)
        return ()

    def pipe(
        self, command: str, *, source: Iterable[bytes], sink: Callable[[bytes], None], silence_seconds: float
    ) -> None:
        process = subprocess.Popen(
            ["bash", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdin
        assert process.stdout
        assert process.stderr
        with process, process.stdin as stdin:
            feeder = Feeder(source, stdin.write, stdin.close)
            while data := process.stdout.read1(1 << 18):
                sink(data)
            error = process.stderr.read().decode()
            feeder.check(self.name, silence_seconds)
        if process.returncode:
            raise CommandFailed(self.name, command, process.returncode, error)

    def close(self) -> None: ...


def asked(what: Program | Path, *arguments: str, **more: object) -> Request:
    """A job of that program, with those arguments."""
    program = what if isinstance(what, Program) else find(str(what))
    return Request(program=program, arguments=arguments, **more)  # type: ignore[arg-type]
