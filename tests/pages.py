"""Code in the pages of documentation: its blocks, by language, and what their title says they need."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import click

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
