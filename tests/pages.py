"""Code in the pages of documentation: its blocks, by language, and what their title says they need."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from infra.cli.command import sparknet_ec2
from sparknet.cli import cli as sparknet

COMMANDS: dict[str, click.Command] = {"sparknet-ec2": sparknet_ec2, "sparknet": sparknet}
ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]*)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``needs`` is what a machine without AWS and other schedulers has not, or empty."""

    language: str
    needs: str
    code: str

    @property
    def commands(self) -> list[str]:
        """Those of a console: the lines that begin with a prompt, joined where a line goes on."""
        joined = self.code.replace("\\\n", " ")
        return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


def commands(page: Path) -> list[str]:
    """All that can be run as they are."""
    return [line for block in blocks(page) if not block.needs for line in block.commands]


def codes(page: Path, language: str) -> list[str]:
    """The code of every block in ``language``."""
    return [block.code for block in blocks(page) if block.language == language]


def typed(page: Path) -> list[str]:
    """Every line of the consoles, without its prompt."""
    return [line.removeprefix("$ ") for code in codes(page, "console") for line in code.splitlines()]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment with an embedded cloud of its own, which is stopped at the end."""
    env = {**os.environ, "SPARKNET_EC2_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    yield env
    subprocess.run(["sparknet-ec2", "local", "clean"], env=env, timeout=60, check=True)


def run(words: Sequence[str | Path], folder: Path, env: Mapping[str, str] | None = None) -> str:
    """What a command that must succeed says on both its streams."""
    ran = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, f"{words}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout + ran.stderr


def parse(command: str) -> None:
    """Read a command line of ours as the command would, without doing anything. Raises click.UsageError."""
    program, *arguments = shlex.split(command, comments=True)
    if program in COMMANDS:
        _read(COMMANDS[program], program, arguments)


def _read(command: click.Command, name: str, arguments: list[str]) -> None:
    if not isinstance(command, click.Group):
        command.make_context(name, arguments)
        return
    context = click.Context(command, info_name=name)
    _, rest, _ = command.make_parser(context).parse_args(arguments)
    found, inner, left = command.resolve_command(context, rest)
    if inner is None:
        raise click.UsageError(f"{name} has no command {rest}")
    _read(inner, found or name, left)
