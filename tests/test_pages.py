"""Every command and program in the pages of docs/: run, or read as the command reads it."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import click
import pytest

from infra import aws
from infra.ec2.error_table import ERROR_TABLE
from tests.pages import DOCS, ROOT, Block, blocks, commands, home, parse, run

__all__ = ["home"]

PAGES = sorted(page.stem for page in DOCS.glob("*.md"))

# Pages whose code is run by the tests here, or by those of a file of their own.
RUN_HERE = {"caffe", "cost_and_safety", "getting_started", "own_data_and_models"}
RUN_ELSEWHERE = {
    "jobs": "infra/test_project_end_to_end.py",
    "planning": "test_planning_page.py",
    "sources": "test_sources_page.py",
}

NEEDS = re.compile(r"downloads \d+ GB|needs (an AWS account|another scheduler)( and ImageNet)?")


def test_code_of_every_page_is_run_or_says_what_it_needs() -> None:
    with_code = {page for page in PAGES if any(b.language in {"console", "python"} for b in code_of(page))}
    assert with_code - RUN_ELSEWHERE.keys() == RUN_HERE


def code_of(page: str) -> list[Block]:
    """Blocks that are to be run."""
    return [block for block in blocks(DOCS / f"{page}.md") if not block.needs]


@pytest.mark.parametrize("page", PAGES)
def test_what_cannot_be_run_here_is_marked_and_can_be_read(page: str) -> None:
    for block in blocks(DOCS / f"{page}.md"):
        if block.needs:
            assert NEEDS.fullmatch(block.needs), block.needs
            assert block.language == "console"
            assert block.commands
        for command in block.commands:
            parse(command)


def test_a_command_that_is_not_ours_any_more_is_found() -> None:
    with pytest.raises(click.UsageError, match="No such option"):
        parse("sparknet-ec2 launch --does-not-exist")


@pytest.mark.slow
@pytest.mark.spark
def test_the_first_cluster_is_made_and_removed(home: dict[str, str], tmp_path: Path) -> None:
    _, *lines = commands(DOCS / "getting_started.md")
    said = [run(shlex.split(line), tmp_path, home) for line in lines]
    assert "round 5/5" in said[2]
    assert (tmp_path / "first" / "model.caffemodel").exists()
    assert "0 resources left" in said[3]


def test_a_shell_completes_verbs_and_options(home: dict[str, str], tmp_path: Path) -> None:
    loading, *_ = commands(DOCS / "getting_started.md")
    typed = 'COMP_WORDS=({}); COMP_CWORD={}; _sparknet_ec2_completion sparknet-ec2; echo "${{COMPREPLY[@]}}"'
    for words, last, completed in (
        ("sparknet-ec2 des", 1, "destroy"),
        ("sparknet-ec2 launch --idle", 2, "--idle-minutes"),
    ):
        script = f"{loading}\n{typed.format(words, last)}"
        assert run(["bash", "-c", script], tmp_path, home).split() == [completed]


@pytest.mark.slow
def test_what_costs_money_can_be_asked(home: dict[str, str], tmp_path: Path) -> None:
    plan, orphans = (run(shlex.split(line), tmp_path, home) for line in commands(DOCS / "cost_and_safety.md"))
    assert "an hour now, at most" in plan
    assert orphans


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.parametrize("page", ["getting_started", "own_data_and_models"])
def test_programs_of_the_pages_run(page: str, tmp_path: Path) -> None:
    (program,) = (block.code for block in code_of(page) if block.language == "python")
    (tmp_path / "line.py").write_text(program)
    env = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(ROOT)}
    said = run([sys.executable, "-W", "ignore", "line.py"], tmp_path, env)
    assert "prediction" in said


def test_the_program_of_the_page_on_caffe_runs(tmp_path: Path) -> None:
    (program,) = (block.code for block in code_of("caffe") if block.language == "python")
    (tmp_path / "apps").symlink_to(ROOT / "apps")
    said = run([sys.executable, "-c", program], tmp_path, {**os.environ, "PYTHONPATH": str(ROOT)})
    assert "'data': (" in said
    assert (tmp_path / "random.caffemodel").exists()


def test_the_prices_of_the_page_are_those_of_the_table() -> None:
    page = (DOCS / "ec2.md").read_text(encoding="utf-8")
    rows = re.findall(r"`([\w.]+)`[^|]*, on demand \| ([\d.]+) \|", page)
    assert len(rows) == 4
    assert all(aws.on_demand_price(name) == float(price) for name, price in rows)


def test_messages_of_the_page_on_trouble_are_said_by_the_code() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)
    files = [
        ROOT / "run",
        *(file for top in ("apps", "infra", "sparknet") for file in (ROOT / top).rglob("*.py")),
    ]
    # a message may be written over several lines of the code
    code = re.sub(r'"\n\s+f?"', "", "\n".join(file.read_text(encoding="utf-8") for file in files))
    said = code + "\n".join(row.what for row in ERROR_TABLE.values())
    assert len(messages) > 20
    assert [message for message in messages if message not in said] == []
