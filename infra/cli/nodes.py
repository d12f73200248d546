"""The verbs about single nodes: run-command, copy-file, login."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from shlex import join
from typing import TYPE_CHECKING

import click

from infra.cli import options
from infra.cli.options import option
from infra.cli.target import Target
from infra.errors import SetupError, UsageError

if TYPE_CHECKING:
    from infra.cluster import Member
    from infra.node.host import Result

WHICH = option(
    "--on",
    type=click.Choice(["all", "master", "workers"]),
    default="all",
    show_default=True,
    help="Which nodes.",
)


@click.command(cls=options.PassesOn)
@options.reaches_a_cluster
@WHICH
@option("--timeout", "seconds", type=options.FiniteRange(min=1), default=600, help="Seconds it may take.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run_command(where: Target, on: str, seconds: float, command: tuple[str, ...]) -> None:
    """Run COMMAND on the nodes, all at once, and show what each says: run-command -- df -h"""
    from infra.node.host import on_all

    text = command[0] if len(command) == 1 else join(command)
    members = _members(where, on)
    results = on_all(members, lambda one: one.host.run(text, timeout_seconds=seconds, check=False))
    failed = []
    for member, result in zip(members, results, strict=True):
        _print_result(member, result)
        if result.exit_status:
            failed.append(f"{member.name} with status {result.exit_status}")
    if failed:
        raise SetupError(f"`{text}` failed on {', '.join(failed)}.")


@click.command()
@options.reaches_a_cluster
@WHICH
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("target")
def copy_file(where: Target, on: str, source: Path, target: str) -> None:
    """Copy SOURCE, a file or a folder of this machine, to TARGET, an absolute path on the nodes."""
    from infra.node.host import on_all

    path = PurePosixPath(target)
    if not path.is_absolute():
        raise UsageError(f"{target} is not an absolute path on the nodes.")
    members = _members(where, on)
    on_all(members, lambda one: one.host.put(source, one.host.root / path.relative_to("/")))
    click.echo(f"{source} is at {path} of {', '.join(member.name for member in members)}.")


@click.command()
@options.reaches_a_cluster
@click.argument("node", default="master")
def login(where: Target, node: str) -> None:
    """Log in to NODE (by default the master) with ssh."""
    from infra.node.ssh import SSHHost

    members = {member.name: member for member in _members(where, "all")}
    if node not in members:
        raise UsageError(f"{where.name} has no node {node}; there are: {', '.join(members)}.")
    host = members[node].host
    if not isinstance(host, SSHHost):
        raise UsageError(
            f"{node} is a folder and processes of this machine: there is nothing to log in to. "
            f"sparknet-ec2 run-command --name {where.name} -- COMMAND runs something there; its files are in "
            f"{host.root}."
        )
    words = host.login_command
    # in place of this process: ssh gets the terminal and its signals, and its status is ours
    os.execvp(words[0], words)


def _members(where: Target, on: str) -> list[Member]:
    from infra import cluster

    members = cluster.connect(where.require(), where.name)
    roles = {"all": ("master", "worker"), "master": ("master",), "workers": ("worker",)}[on]
    return [member for member in members if member.node.role in roles]


def _print_result(member: Member, result: Result) -> None:
    click.echo(f"== {member.name}" + (f" (status {result.exit_status})" if result.exit_status else ""))
    for text, is_error in ((result.stdout, False), (result.stderr, True)):
        click.echo(text, nl=bool(text) and not text.endswith("\n"), err=is_error)
