"""Commands of this machine (ip, nft, mkfs), each with a deadline, in its own network or in another one."""

from __future__ import annotations

import os
import shutil
import subprocess

SEARCHED = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
DEADLINE_SECONDS = 30.0


class CommandError(OSError):
    """A command failed; the message says which, and what it said."""


def find(name: str) -> str | None:
    """The path of a tool, looked for in the folders of administration as well."""
    return shutil.which(name, path=SEARCHED)


def run(*words: str, text: str = "", network: str | None = None) -> str:
    """Its standard output. ``text`` is its input; ``network`` the file of the namespace it is to see.

    Raises CommandError.
    """
    enter = (find("nsenter") or "nsenter", f"--net={network}", "--") if network else ()
    command = (*enter, find(words[0]) or words[0], *words[1:])
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"{' '.join(words)}: {error}") from None
    if done.returncode != 0:
        raise CommandError(f"{' '.join(words)}: {done.stderr.strip() or f'status {done.returncode}'}")
    return done.stdout


def ip(text: str, *, network: str | None = None) -> None:
    """Several ``ip`` commands at once, a line each. Raises CommandError at the first that fails."""
    run("ip", "-batch", "-", text=text, network=network)
