"""A SparkSession with the settings that long-lived training tasks need, and the reason for each."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path, PurePath

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

import sparknet
from sparknet.errors import UsageError

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

ARCHIVES = (".zip", ".egg", ".whl")


def session(
    app_name: str = "SparkNet", master: str | None = None, options: Mapping[str, str] | None = None
) -> SparkSession:
    """The running session, or a new one with ``SETTINGS`` and then ``options`` on top.

    ``master`` overrides what spark-submit was told; without either it is ``local[*]``.
    """
    SparkContext._ensure_initialized()  # before that, a SparkConf does not see what spark-submit was told
    conf = SparkConf()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # or workers run whatever python3 is
    master = master or conf.get("spark.master", None) or "local[*]"
    settings = {**SETTINGS, **import_path(conf), **(options or {})}
    conf.setMaster(_patient(master)).setAppName(app_name).setAll(list(settings.items()))
    return SparkSession.builder.config(conf=conf).getOrCreate()


def check(spark: SparkSession) -> None:
    """Raise UsageError if ``spark`` was started with settings that break training."""
    conf = spark.sparkContext.getConf()
    if conf.get("spark.speculation", "false") == "true":
        raise UsageError(
            "spark.speculation is true: a second copy of a slow worker would replace it. Set it to false, "
            "or let sparknet.spark.session() make the session"
        )


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


def _patient(master: str) -> str:
    """``local[N]`` gives up at the first failed task whatever ``maxFailures`` is, unless the URL says so."""
    cores = "1" if master == "local" else (re.fullmatch(r"local\[([\d*]+)\]", master) or ["", None])[1]
    return f"local[{cores},{SETTINGS['spark.task.maxFailures']}]" if cores else master
