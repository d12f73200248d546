"""Foreign: a program given to a Spark that somebody else runs, by spark-submit, with the trainer packed.

The driver runs on this machine, in the project's own folder. The workers need a Python with the trainer's
packages (``pip install 'sparknet-ec2[train]'``).
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from infra.errors import SetupError
from infra.jobs import project, script
from infra.jobs.request import Request
from infra.node import bootstrap, bundle

STOP_SECONDS = 20.0  # for a driver to say goodbye to Spark


def run(request: Request, *, master: str, job: str, output: Path, on_line: Callable[[str], None]) -> int:
    """Run what is asked for on ``master``, and pass on every line that it says; its exit status.

    Raises SetupError if there is no spark-submit here.
    """
    submit = _spark_submit()
    output = output.absolute()
    (output / script.EVENTS).mkdir(parents=True, exist_ok=True)
    env = {
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "PYTHONUNBUFFERED": "1",
        **os.environ,
        **request.env,
        "SPARKNET_OUTPUT": str(output),
    }
    with tempfile.TemporaryDirectory(prefix="sparknet-") as scratch:
        words = [submit, "--master", master, "--name", job, *_words(request, Path(scratch), output)]
        cwd = None if request.program.is_app else request.program.folder
        process = subprocess.Popen(
            [*words, *request.arguments],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            for line in process.stdout or ():
                on_line(line.rstrip("\n"))
            code = process.wait()
        except BaseException:
            process.terminate()
            _end(process)
            raise
    return code if code >= 0 else 128 - code


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _spark_submit() -> str:
    """That of SPARK_HOME, of the PATH, or of the pyspark that is installed here."""
    homes = [os.environ["SPARK_HOME"]] if os.environ.get("SPARK_HOME") else []
    spec = find_spec("pyspark") if not homes and not shutil.which("spark-submit") else None
    homes += list(spec.submodule_search_locations or []) if spec else []
    for home in homes:
        file = Path(home) / "bin/spark-submit"
        if file.is_file():
            return str(file)
    found = shutil.which("spark-submit")
    if found is None:
        raise SetupError("There is no spark-submit here: set SPARK_HOME, or pip install pyspark.")
    return found


def _words(request: Request, scratch: Path, output: Path) -> Iterable[str]:
    """What spark-submit is told after the master and the name, up to the program's own arguments."""
    zipped = bundle.build().zipped
    (scratch / script.TRAINER).write_bytes(zipped)
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        archive.extractall(scratch / script.PROGRAM.parent)  # the driver finds their data as files
    (scratch / script.PROGRAM).write_bytes((bootstrap.AMI / "job/program.py").read_bytes())
    modules = script.modules(project.collect(request.program))
    (scratch / script.MODULES).write_bytes(modules)
    properties = scratch / "properties"
    events = PurePosixPath(output / script.EVENTS)
    properties.write_text(_defaults() + script.settings(request, events, {}), encoding="utf-8")
    yield from ("--properties-file", str(properties))
    folder = PurePosixPath(scratch)
    yield from script.options(
        request, folder, lambda _, path: PurePosixPath(Path(path).absolute()), bool(modules)
    )
    yield from script.program(request, folder, PurePosixPath(request.program.folder), PurePosixPath(output))


def _defaults() -> str:
    """The settings that spark-submit has by itself, which those of a job come after."""
    home = os.environ.get("SPARK_HOME")
    folder = os.environ.get("SPARK_CONF_DIR") or (f"{home}/conf" if home else "")
    with suppress(OSError):
        return (Path(folder) / "spark-defaults.conf").read_text(encoding="utf-8") + "\n" if folder else ""
    return ""
