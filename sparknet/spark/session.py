"""A SparkSession with the settings that long-lived training tasks need, and the reason for each."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

import sparknet
from sparknet.errors import UsageError
from sparknet.spark.bundle import bundle

log = logging.getLogger(__name__)

SETTINGS: Mapping[str, str] = {
    # A lost worker is replaced however often it takes; one that keeps failing is the coordinator's business.
    "spark.task.maxFailures": "1000",
    "spark.stage.maxConsecutiveAttempts": "1000",
    "spark.excludeOnFailure.enabled": "false",
    # A second copy of a slow worker would fence off the first.
    "spark.speculation": "false",
    # Any free slot will do: a shard crosses the network once.
    "spark.locality.wait": "0s",
    # A shard made from arrays in the driver travels inside its task (MiB).
    "spark.rpc.message.maxSize": "1024",
    # Pictures are large rows: keep Arrow batches far below its 2 GiB.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "1000",
    "spark.python.daemon.module": "sparknet.spark.daemon",
    "spark.ui.showConsoleProgress": "false",
}

# What the driver's Java is started with: a setting that comes later changes nothing.
_OF_JAVA = (
    "spark.driver.memory",
    "spark.driver.defaultJavaOptions",
    "spark.driver.extraJavaOptions",
    "spark.driver.extraClassPath",
    "spark.driver.extraLibraryPath",
)
# A heap holds this share at least of what was asked for: some collectors keep a part for themselves.
_HEAP = 0.85

ARCHIVES = (".zip", ".egg", ".whl")
# What Spark runs where nobody says otherwise.
_ANY_PYTHON = "python3"


def session(
    app_name: str = "SparkNet",
    master: str | None = None,
    options: Mapping[str, str] | None = None,
    *,
    ship: bool = False,
) -> SparkSession:
    """The running session, or a new one with ``SETTINGS`` and then ``options`` on top.

    ``master`` overrides spark-submit's; without either it is ``local[*]``. What Java is started
    with, as ``spark.driver.memory``, must be said before it runs: under spark-submit, and when there has been
    a session in this process, it does. A memory that comes too late is a warning in the log. ``ship`` hands
    this package to executors that do not have it, which a session that runs already cannot (``bundle.py``).
    """
    _start_java(options or {})  # before that, a SparkConf does not see spark-submit's options
    conf = SparkConf()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # or workers run whatever python3 is
    master = master or conf.get("spark.master", None) or "local[*]"
    if ship:
        conf.setAll(list(shipped(conf).items()))
    settings = {**SETTINGS, **import_path(conf), **(options or {})}
    conf.setMaster(_patient(master)).setAppName(app_name).setAll(list(settings.items()))
    spark = SparkSession.builder.config(conf=conf).getOrCreate()
    _check_memory(spark, settings.get("spark.driver.memory"))
    return spark


def use_this_python(context: SparkContext) -> None:
    """Let the tasks of a session of this machine run in this Python, unless somebody has chosen another.

    Otherwise they run whatever python3 is, which need not have this package, nor torch.
    """
    if context.pythonExec == _ANY_PYTHON and str(context.master).startswith("local"):
        context.pythonExec = sys.executable


def check(spark: SparkSession) -> None:
    """Raise UsageError if ``spark`` was started with settings that break training."""
    use_this_python(spark.sparkContext)
    conf = spark.sparkContext.getConf()
    if conf.get("spark.speculation", "false") == "true":
        raise UsageError(
            "spark.speculation is true: a second copy of a slow worker would replace it. Set it to false, "
            "or let sparknet.spark.session() make the session"
        )


def shipped(conf: SparkConf) -> dict[str, str]:
    """What hands this package to the executors."""
    archive = bundle()
    return {
        name: ",".join(filter(None, [archive, conf.get(name, "") or ""]))
        for name in ("spark.files", "spark.submit.pyFiles")
    }


def import_path(conf: SparkConf) -> dict[str, str]:
    """What makes this package importable where the Python daemon starts, before any task has run there.

    Spark adds ``--py-files`` to a worker's path only inside a task, too late for the daemon's module; but
    the files lie in the executor's working folder by then, so their names are enough, and they come first. A
    source tree is named in full, for workers of this machine.
    """
    names = [PurePath(name).name for name in (conf.get("spark.submit.pyFiles", "") or "").split(",")]
    archive = Path(sparknet.__file__).parent.parent
    if archive.suffix in ARCHIVES:
        names.append(archive.name)
    elif "site-packages" not in archive.parts:
        names.append(str(archive))
    entries = [*names, conf.get("spark.executorEnv.PYTHONPATH", "") or ""]
    path = ":".join(dict.fromkeys(filter(None, entries)))
    return {"spark.executorEnv.PYTHONPATH": path} if path else {}


def _start_java(options: Mapping[str, str]) -> None:
    """Start the driver's Java, unless it runs, as its part of ``options`` says."""
    conf = SparkConf(loadDefaults=False)
    for name in _OF_JAVA:
        if name in options:
            conf.set(name, options[name])
    SparkContext._ensure_initialized(conf=conf)


def _check_memory(spark: SparkSession, wanted: str | None) -> None:
    """Say so if Java was started with another heap than ``wanted``."""
    if wanted is None:
        return
    java: Any = spark.sparkContext._jvm
    heap = java.java.lang.Runtime.getRuntime().maxMemory()
    due = java.org.apache.spark.network.util.JavaUtils.byteStringAsMb(wanted) << 20
    if not _HEAP * due <= heap <= due / _HEAP:
        log.warning(
            "spark.driver.memory=%s comes too late: the driver's Java runs, with %d MiB. Say it to "
            "spark-submit (--driver-memory %s), or before anything in this process starts Spark",
            wanted,
            heap >> 20,
            wanted,
        )


def _patient(master: str) -> str:
    """``local[N]`` gives up at the first failed task whatever ``maxFailures`` is, unless the URL says so."""
    cores = "1" if master == "local" else (re.fullmatch(r"local\[([\d*]+)\]", master) or ["", None])[1]
    return f"local[{cores},{SETTINGS['spark.task.maxFailures']}]" if cores else master
