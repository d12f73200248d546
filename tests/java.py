"""The Java of the tests: it starts Spark with half of the work, and only for a test that says that it does.

``install`` points JAVA_HOME to a ``java`` of our own, a script that runs the machine's with what suits a JVM
that lives for seconds:

- the quick compiler and the simple collector: the best code pays off after minutes;
- an archive of Spark's classes, read and verified beforehand (class data sharing, JEP 350), where it is made.

    python -m tests.java ARCHIVE        make the archive: half a minute, once for each environment
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

HOME = Path(sys.prefix) / "java-of-tests"
SPARK = Path(next(iter(importlib.util.find_spec("pyspark").submodule_search_locations)))  # type: ignore[union-attr]
ROOT = Path(__file__).resolve().parent.parent

FORBIDDEN = "TEST_WITHOUT_JAVA"
"""Set while a test runs that is not marked ``spark``: its name."""

# The archive serves class paths that begin as the one it was made with, in which no folder may have files. A
# host of the embedded cloud has its settings first, and reaches the jars over a link: the folder of settings
# goes to the end, and the link is followed.
SCRIPT = """#!/bin/sh
# Made by tests/java.py.
if [ -n "${{{forbidden}:-}}" ] && [ "$1" != -version ]; then
    echo "${{{forbidden}}} starts Java: mark it with pytest.mark.spark" >&2
    exit 86
fi
java='{java}' spark='{spark}' archive='{archive}'
if [ "$1" = -cp ] && [ -e "$archive" ]; then
    path=$2 jars=${{2#*:}} settings=${{2%%:*}}
    home=${{jars%%/jars/*}}
    if [ "$home" != "$spark" ] && [ "$(readlink -f "$home")" = "$spark" ]; then
        path=$spark/conf:$(printf '%s' "$jars" | sed "s|$home/|$spark/|g;s|:$||"):$settings
    fi
    case "$path" in "$spark/conf:$spark/jars/"*)
        shift 2
        set -- "-XX:SharedArchiveFile=$archive" -cp "$path" "$@"
    esac
fi
exec "$java" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC "$@"
"""


def install() -> None:
    """Put our ``java`` in JAVA_HOME, unless there is none, or none that hosts in namespaces see."""
    java = _machines_java()
    if java is None:
        return
    text = SCRIPT.format(java=java, spark=SPARK, archive=archive_of(java), forbidden=FORBIDDEN)
    script = HOME / "bin" / "java"
    if not script.exists() or script.read_text() != text:
        script.parent.mkdir(parents=True, exist_ok=True)
        new = script.with_name(f"java.{os.getpid()}")
        new.write_text(text)
        new.chmod(0o755)
        new.replace(script)
    os.environ["JAVA_HOME"] = str(HOME)


def start_archive() -> Callable[[], None]:
    """Begin to make the archive if there is none; what comes back ends that."""
    java = _machines_java()
    if java is None or archive_of(java).exists():
        return lambda: None
    maker = subprocess.Popen(
        [sys.executable, "-m", "tests.java", str(archive_of(java))],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if name != FORBIDDEN},
        start_new_session=True,
    )

    def end() -> None:
        if maker.poll() is None:
            os.killpg(maker.pid, 9)
        maker.wait()

    return end


def archive_of(java: Path) -> Path:
    """Where the archive for this Java and this Spark is, or will be: the JVM refuses any other's."""
    parts = [java, (java.parent.parent / "release").stat().st_mtime_ns, SPARK]
    parts += sorted((jar.name, jar.stat().st_mtime_ns) for jar in (SPARK / "jars").glob("*.jar"))
    return HOME / f"spark-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.jsa"


def make_archive(archive: Path) -> None:
    """Run a small job on a small cluster in a JVM that writes down its classes when it ends."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with (archive.parent / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # somebody else is at it
        if archive.exists():
            return
        new = archive.with_suffix(".new")
        new.unlink(missing_ok=True)
        _run_a_job(f"-XX:ArchiveClassesAtExit={new} -Xlog:disable -Xlog:all=error:stderr")
        new.replace(archive)
        for old in archive.parent.glob("*.jsa"):
            if old != archive:
                old.unlink()


def _run_a_job(java_options: str) -> None:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    warnings.simplefilter("ignore")
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    settings = {
        "spark.driver.extraJavaOptions": java_options,
        "spark.driver.host": "127.0.0.1",
        "spark.log.level": "OFF",
    }
    # master, worker and driver of this kind of cluster are one JVM
    builder = SparkSession.builder.master("local-cluster[1,1,512]").config("spark.executor.memory", "512m")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    pairs = spark.sparkContext.parallelize(range(100), 2).map(lambda number: (number % 5, number))
    pairs.reduceByKey(lambda a, b: a + b).collect()
    spark.stop()
    gateway = SparkContext._gateway
    assert gateway is not None
    gateway.shutdown()
    gateway.proc.stdin.close()  # the sign for it to end
    gateway.proc.wait(300)


def _machines_java() -> Path | None:
    home = os.environ.get("JAVA_HOME")
    if home == str(HOME):  # a pytest started by a test
        found: str | None = _java_in(HOME / "bin" / "java")
    else:
        found = f"{home}/bin/java" if home else shutil.which("java")
    java = Path(found).resolve() if found and Path(found).exists() else None
    return java if java and java.is_relative_to("/usr") else None


def _java_in(script: Path) -> str:
    """The machine's Java, as our script names it."""
    return script.read_text().partition("java='")[2].partition("'")[0]


if __name__ == "__main__":
    make_archive(Path(sys.argv[1]))
