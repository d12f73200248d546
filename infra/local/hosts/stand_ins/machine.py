"""sudo (runs the command as it is: the user owns the host), nproc and hostname (its share and name)."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

OPTIONS_WITH_VALUE = {
    "-u",
    "--user",
    "-g",
    "--group",
    "-h",
    "--host",
    "-p",
    "--prompt",
    "-C",
    "-D",
    "--chdir",
}


def main(name: str, arguments: list[str]) -> int:
    record(name, arguments)
    if name == "nproc":
        sys.stdout.write(os.environ.get("SPARKNET_HOST_CPUS", str(os.cpu_count() or 1)) + "\n")
        return 0
    if name == "hostname":
        sys.stdout.write(os.environ["HOSTNAME"] + "\n")
        return 0
    return run_as_is(arguments)


def run_as_is(arguments: list[str]) -> int:
    """Skip sudo's own options, take ``NAME=value`` into the environment, become the command."""
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option == "--":
            break
        if option in OPTIONS_WITH_VALUE and rest:
            rest.pop(0)
    while rest and "=" in rest[0] and not rest[0].startswith("/"):
        key, _, value = rest.pop(0).partition("=")
        os.environ[key] = value
    if not rest:
        return 0
    try:
        os.execvp(rest[0], rest)
    except FileNotFoundError:
        sys.stderr.write(f"sudo: {rest[0]}: command not found\n")
        return 1


def record(name: str, arguments: list[str]) -> None:
    root = os.environ.get("SPARKNET_ROOT")
    if root:
        with Path(root, "var/log/stand-ins.log").open("a") as log:
            log.write(time.strftime("%Y-%m-%dT%H:%M:%S ") + " ".join([name, *arguments]) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
