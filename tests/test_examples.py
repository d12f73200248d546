"""Every program of docs/examples, run as its first lines say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.spark]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "examples"

# What each program says in the end, as a pattern, and how good a number in it must be.
SAYS = {
    "fine_tuning.py": (r"right: (\d+)%", 60),
    "own_master.py": (r"loss (-?\d\.\d+)", 0),
    "picture_folder.py": (r"loss (\d\.\d+); model\.caffemodel and report\.html are in", 0),
    "pipeline.py": (r"accuracy (\d\.\d+)", 0.85),
    "predict_to_parquet.py": (r"(\d+) rows", 500),
    "table_regression.py": (r"R2 (\d\.\d+)", 0.9),
    "text_rnn.py": (r"right: (\d+)%", 80),
    "text_transformer.py": (r"accuracy (\d\.\d+)", 0.8),
}


def pictures(folder: Path) -> str:
    """Dark and bright pictures, a folder each."""
    rng = np.random.default_rng(0)
    for name, light in (("dark", 0), ("bright", 120)):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            pixels = (rng.integers(0, 120, (40, 40, 3)) + light).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return str(folder)


def arguments(name: str, tmp_path: Path) -> list[str]:
    if name == "picture_folder.py":
        return [pictures(tmp_path / "pictures")]
    return ["local-cluster[2,1,1024]"] if name == "own_master.py" else []


def test_every_example_is_run_here() -> None:
    assert {path.name for path in FOLDER.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_the_example_does_what_it_says(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", str(FOLDER / name), *arguments(name, tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    pattern, least = SAYS[name]
    found = re.search(pattern, ran.stdout.replace(",", ""))
    assert found, ran.stdout + ran.stderr[-2000:]
    assert float(found.group(1)) >= least
