"""What a session's settings come to in the driver's Java, each time in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyspark
import pytest

from tests.apps.run_app import environment

pytestmark = [pytest.mark.spark, pytest.mark.slow]

SUBMIT = Path(pyspark.__file__).parent / "bin" / "spark-submit"

# The heap that Java has, what it was started with, and what Spark believes, as JSON.
PROGRAM = """
import json, logging, sys, warnings
warnings.simplefilter("ignore")
logging.basicConfig(level=logging.WARNING, format="LOG %(message)s")
from sparknet.spark import session
for options in json.loads(sys.argv[1]):
    spark = session("memory", "local[1]", {"spark.ui.enabled": "false", "spark.log.level": "OFF", **options})
    java = spark.sparkContext._jvm.java.lang
    print(json.dumps({
        "heap": java.Runtime.getRuntime().maxMemory() >> 20,
        "property": java.System.getProperty("sparknet.said"),
    }))
    spark.stop()
"""


def ran(folder: Path, *options: dict[str, str], submit: tuple[str, ...] = ()) -> Any:
    """What the program says of each session in turn, and its log."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    by = [str(SUBMIT), *submit] if submit else [sys.executable]
    python = {"PYSPARK_PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [*by, str(program), json.dumps(options)],
        cwd=folder,
        env=environment(**python),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    lines = (done.stdout + done.stderr).splitlines()  # spark-submit makes one of them
    return said, [line for line in lines if line.startswith("LOG spark.driver")]


def test_the_drivers_java_is_started_with_what_was_asked_for(tmp_path: Path) -> None:
    asked = {"spark.driver.memory": "700m", "spark.driver.extraJavaOptions": "-Dsparknet.said=two\\ words"}
    (first, second), warned = ran(tmp_path, asked, {"spark.driver.memory": "300m"})
    assert first["heap"] == pytest.approx(700, rel=0.1)
    assert first["property"] == "two words"
    assert second["heap"] == first["heap"]  # the same Java
    (warning,) = warned
    assert f"memory=300m comes too late: the driver's Java runs, with {first['heap']} MiB" in warning


def test_under_spark_submit_the_memory_is_spark_submits_and_another_is_warned_of(tmp_path: Path) -> None:
    submit = ("--driver-memory", "600m")
    (first, second), warned = ran(tmp_path, {}, {"spark.driver.memory": "300m"}, submit=submit)
    assert first["heap"] == pytest.approx(600, rel=0.1)
    assert second["heap"] == first["heap"]
    (warning,) = warned
    assert "Say it to spark-submit (--driver-memory 300m)" in warning
