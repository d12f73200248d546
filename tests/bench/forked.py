"""What runs in a process of its own, forked from this one."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click


def apart(name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``measure`` finds in a process of its own, with which all that it has forked ends."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.close(read)
        as_child(lambda: os.write(write, f"{json.dumps(measure())}\n".encode()))
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.readline()
    os.waitpid(pid, 0)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # its workers and relays
    if not said:
        raise click.ClickException(f"{name}: the run failed, see above")
    found: dict[str, Any] = json.loads(said)
    return found


def as_child(work: Callable[[], object]) -> None:
    """End this process with it, whatever it does."""
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - the process ends here, whatever it was
        traceback.print_exc()
    finally:
        os._exit(code)
