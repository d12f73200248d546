"""The server process of an embedded cloud, seen from outside: found, started, stopped, cleaned up after.

The starter gives the server a pipe and waits for one line on it: ``{"ready": true}`` or ``{"error": ...}``.
The server forks away from the starter before that, so it survives the command that started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

from infra.errors import DeadlineExceeded, SetupError, UsageError, last_lines
from infra.local import control
from infra.local.home import OF_CLUSTERS, Endpoint, Home
from infra.local.hosts import namespaces
from infra.local.hosts.processes import end_processes_of_home
from infra.loopback import unproxied
from infra.private_key import PASSPHRASE_VARIABLE

START_SECONDS = 60.0  # usually 2; importing moto from a cold disk takes far longer
STOP_SECONDS = 20.0


def find(home: Home) -> Endpoint | None:
    """The running server of ``home``, or None; a state file left by a dead one counts as none."""
    endpoint = home.read_endpoint()
    if endpoint is None or not _is_alive(endpoint):
        return None
    control.call(endpoint, "GET", "health", timeout_seconds=10)
    return endpoint


def find_or_start(home: Home, *, scenario: Path | None = None, port: int = 0) -> Endpoint:
    """The running server of ``home``, started first if there is none.

    Raises SetupError with the end of its log if it does not come up, UsageError if ``port`` is taken, or if a
    server that runs already was to get a scenario or another port.
    """
    with home.locked(timeout_seconds=START_SECONDS + STOP_SECONDS):
        endpoint = find(home)
        if endpoint is None:
            _clean_up(home)  # whatever a dead server left: its instances died with it
            return _start(home, scenario, port)
        if scenario or port not in (0, endpoint.port):
            raise UsageError(
                f"the embedded cloud in {home.folder} runs already, on port {endpoint.port}; end it with "
                "`sparknet-ec2 local stop` before giving it another scenario or port"
            )
        return endpoint


def stop(home: Home) -> bool:
    """End the server of ``home`` and every host, remove its files; False if none was running."""
    if not home.folder.exists():
        return False
    with home.locked(timeout_seconds=START_SECONDS + STOP_SECONDS):
        endpoint = home.read_endpoint()
        was_running = endpoint is not None and _is_alive(endpoint)
        if endpoint is not None and was_running:
            _ask_to_stop(endpoint)
        _clean_up(home)
    return was_running


def clean(home: Home, *, keep: str = "") -> None:
    """``stop``, and then remove the whole folder, but what is called ``keep`` in it."""
    stop(home)
    if not (keep and (home.folder / keep).exists()):
        shutil.rmtree(home.folder, ignore_errors=True)
        return
    for one in home.folder.iterdir():
        if one.is_dir() and one.name != keep:
            shutil.rmtree(one, ignore_errors=True)
        elif not one.is_dir():
            one.unlink(missing_ok=True)


def _start(home: Home, scenario: Path | None, port: int) -> Endpoint:
    command = [sys.executable, "-m", "infra.local.server", "--folder", str(home.folder), "--port", str(port)]
    command += ["--scenario", str(scenario)] if scenario else []
    with home.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env=_environment(),
        )
    with process:  # ends at once: the server is its grandchild
        assert process.stdout is not None
        line = _first_line(process.stdout.fileno(), START_SECONDS)
    answer = json.loads(line or "{}")
    if "error" in answer:
        raise UsageError(answer["error"])
    endpoint = home.read_endpoint()
    if not answer.get("ready") or endpoint is None:
        raise SetupError(
            f"the embedded cloud did not start; the end of {home.log}:\n"
            f"{last_lines(home.log.read_text(errors='replace'))}"
        )
    return endpoint


def _environment() -> dict[str, str]:
    """This process's environment, in which the child finds this very package, without the user's secret."""
    package_parent = str(Path(__file__).resolve().parents[2])
    paths = [package_parent, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    inherited = {name: value for name, value in os.environ.items() if name != PASSPHRASE_VARIABLE}
    return {
        **inherited,
        **unproxied(inherited),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }


def _first_line(descriptor: int, timeout_seconds: float) -> str:
    """The first line written to the pipe; empty if its writers ended without one."""
    deadline = time.monotonic() + timeout_seconds
    read = b""
    while not read.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise DeadlineExceeded(
                f"the embedded cloud did not answer within {timeout_seconds:g} s of its start"
            )
        chunk = os.read(descriptor, 65536)
        if not chunk:
            break
        read += chunk
    return read.decode()


def _is_alive(endpoint: Endpoint) -> bool:
    """True if the process of the state file runs, and is not another one that was given its number."""
    try:
        process = psutil.Process(endpoint.pid)
        is_same = abs(process.create_time() - endpoint.started) < 2
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _ask_to_stop(endpoint: Endpoint) -> None:
    with contextlib.suppress(SetupError):  # stuck or dying: killed below
        control.call(endpoint, "POST", "stop", timeout_seconds=STOP_SECONDS)
    deadline = time.monotonic() + STOP_SECONDS
    while _is_alive(endpoint):
        if time.monotonic() > deadline:
            psutil.Process(endpoint.pid).kill()
        time.sleep(0.02)


def _clean_up(home: Home) -> None:
    """Remove what a server that is gone left behind; its log stays."""
    endpoint = home.read_endpoint()
    end_processes_of_home(home.folder)
    namespaces.clean(home.folder)
    if endpoint is not None and Path(endpoint.runtime).name.startswith("sparknet-"):
        shutil.rmtree(endpoint.runtime, ignore_errors=True)
    for leftover in (home.hosts, home.volumes, *(home.folder / name for name in OF_CLUSTERS)):
        shutil.rmtree(leftover, ignore_errors=True)
    home.endpoint_file.unlink(missing_ok=True)
