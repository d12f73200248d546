"""Every command and file of docs/planning.md, run: with fewer workers, and with fewer and smaller runs."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from sparknet import cli
from tests.pages import DOCS, ROOT, codes, typed

PAGE = DOCS / "planning.md"

FEWER = "--workers 2,4"
SMALLER = (
    "--set data=synthetic --set records=60 --set test_records=20 --set batch_size=10 "
    "--set test_every=1 --set grid.seed=[0] --set grid.tau=[1] --set grid.workers=[2] --jobs 1"
)


COMMANDS = typed(PAGE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_does_what_the_page_says(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = run(command, tmp_path, monkeypatch)
    if " plan " in command:
        assert "images/s" in told
        assert "average, star, float32" in told
    else:
        assert "results.csv, curves.png and report.html are in" in told


def test_the_file_is_an_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = codes(PAGE, "toml")
    (tmp_path / "file.toml").write_text(block)
    assert "2/2  slowmo, K 2" in run(f"sparknet experiment {tmp_path / 'file.toml'}", tmp_path, monkeypatch)


def run(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the command says, from the project's folder but for what it writes."""
    monkeypatch.chdir(ROOT)
    words = [word.replace("plan.csv", str(folder / "plan.csv")) for word in shlex.split(command)]
    assert words[0] == "sparknet"
    more = FEWER if words[1] == "plan" else f"{SMALLER} {_length(command)} --output {folder / 'out'}"
    told = CliRunner().invoke(cli.cli, [*words[1:], *shlex.split(more)], catch_exceptions=False)
    assert told.exit_code == 0, told.output
    return told.output


def _length(command: str) -> str:
    """By steps of a worker, or by epochs, as the file has it."""
    return "--set steps=2" if "k_and_tau" in command else "--set epochs=0.2"
