"""Script: what a job's folder says is to be run, and with which of Spark's settings."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from shlex import join, quote

from infra.jobs import progress, record
from infra.jobs.project import Project
from infra.jobs.request import Request, is_elsewhere

PROGRAM = PurePosixPath("trainer/_sparknet_program.py")  # ami/job/program.py, next to the trainer's packages
TRAINER, MODULES = "trainer.zip", "modules.zip"  # what the workers import of the trainer and of the project
WORK, OUTPUT, EVENTS = "work", "output", "spark-events"
PAGE = "page"  # where the driver writes the address of its live page
_ESCAPED = re.compile(r"[\\:=#!\s]")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a job runs: ``root`` of the master and its private address, and the job's folder.

    ``cores``: of the smallest worker. ``machines``: what the job's page is to say of them, as JSON.
    ``python``: of an environment made for the job, or "".
    """

    root: PurePosixPath
    address: str
    folder: PurePosixPath
    cores: int
    machines: str = ""
    python: str = ""
    has_modules: bool = False
    saves: str = ""  # where a run saves that names no place; "": nowhere


def command(request: Request, place: Place) -> str:
    """The shell script of a job; it may hold secrets."""
    folder, conf = place.folder, place.root / "opt/sparknet/conf"
    exports = {
        "SPARK_CONF_DIR": str(conf),
        "PYTHONUNBUFFERED": "1",
        "SPARKNET_OUTPUT": str(folder / OUTPUT),
        progress.VARIABLE: str(folder / progress.FILE),
        "SPARKNET_PAGE": str(folder / PAGE),
        **({"SPARKNET_CLUSTER": place.machines} if place.machines else {}),
        **({record.CHECKPOINT: place.saves} if place.saves else {}),
        **request.env,
    }
    words = [
        str(place.root / "opt/sparknet/spark/bin/spark-submit"),
        *("--master", f"spark://{place.address}:7077"),
        *("--name", folder.name),
        *("--properties-file", str(folder / "properties"), "--load-spark-defaults"),
        *options(request, folder, lambda kind, path: folder / sent_as(kind, path), place.has_modules),
        *program(request, folder, folder / WORK, folder / OUTPUT),
        *request.arguments,
    ]
    return "\n".join(
        (
            *(f"export {name}={quote(value)}" for name, value in exports.items()),
            f"cd {quote(str(folder / WORK))}",
            f"exec {join(words)}",
            "",
        )
    )


def options(
    request: Request,
    folder: PurePosixPath,
    placed: Callable[[str, str], PurePosixPath],
    has_modules: bool,
) -> Iterable[str]:
    """What spark-submit is told of files and memory; ``placed``: where a file of an option is.

    ``folder`` holds the zips of the trainer and of the project's modules.
    """

    def there(kind: str, paths: Iterable[str]) -> list[str]:
        return [path if is_elsewhere(path) else str(placed(kind, path)) for path in paths]

    zips = [str(folder / name) for name in (TRAINER, *([MODULES] if has_modules else []))]
    yield from ("--py-files", ",".join([*zips, *there("py-files", request.py_files)]))
    for kind, paths in (("files", request.files), ("jars", request.jars)):
        if paths:
            yield from (f"--{kind}", ",".join(there(kind, paths)))
    if request.packages:
        yield from ("--packages", ",".join(request.packages))
    for name, size in (("driver", request.driver_memory), ("executor", request.executor_memory)):
        if size:
            yield from (f"--{name}-memory", size)


def program(
    request: Request, folder: PurePosixPath, work: PurePosixPath, output: PurePosixPath
) -> Iterable[str]:
    """The file that Spark is given, and what it is to run, up to the program's own arguments."""
    wanted, packages = request.program, folder / PROGRAM.parent
    yield str(folder / PROGRAM)
    if wanted.is_app:
        yield from (str(packages), "module", f"apps.{wanted.start.removesuffix('.py')}")
        yield from ("--output", str(output))
    elif wanted.kind == "module":
        yield from (str(work), "module", wanted.start)
    else:
        yield from (str(work), "file", str(work / wanted.start))


def settings(request: Request, events: PurePosixPath, more: Mapping[str, str]) -> str:
    """Spark's settings for a job, as java.util.Properties reads them; they may hold secrets.

    The user's own go before ``more``, and that before the ones that every job has.
    """
    values = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{events}",
        "spark.eventLog.compress": "true",
        **{f"spark.executorEnv.{name}": value for name, value in request.env.items()},
        **more,
        **request.conf,
    }
    return "".join(f"{_escaped(key)} {_escaped(value)}\n" for key, value in values.items())


def of_place(request: Request, place: Place) -> dict[str, str]:
    """The settings that come of where a job runs."""
    found = {}
    if place.python:
        found["spark.pyspark.python"] = found["spark.pyspark.driver.python"] = place.python
    if request.workers is not None:
        found["spark.executor.cores"] = str(place.cores)
        found["spark.cores.max"] = str(place.cores * request.workers)
    return found


def modules(found: Project) -> bytes:
    """The project's own modules in one zip, which the workers import; nothing where there are none.

    Equal modules give equal bytes.
    """
    items = [item for item in found.items if item.path.endswith(".py")]
    if not items:
        return b""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for item in items:
            info = zipfile.ZipInfo(os.fsencode(item.path).decode("utf-8", "replace"))
            info.external_attr = 0o644 << 16
            archive.writestr(info, item.file.read_bytes(), zipfile.ZIP_DEFLATED)
    return target.getvalue()


def sent_as(kind: str, path: str) -> str:
    """The path in a job's folder of a file that was given by an option."""
    return f"{kind}/{PurePosixPath(path).name}"


def _escaped(text: str) -> str:
    controls = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f"}
    return _ESCAPED.sub(lambda found: controls.get(found[0], f"\\{found[0]}"), text)
