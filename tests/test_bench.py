"""The benchmarks can be imported and tell their options: what they measure is not run here."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "bench"
PROGRAMS = sorted(path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_benchmark_says_what_it_measures_and_its_options(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"tests.bench.{name}", "--help"])
    program = importlib.import_module(f"tests.bench.{name}")
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code in (0, None)
    said = capsys.readouterr().out
    assert "--help" in said
    assert len(said.splitlines()) > 5
