"""What the benchmark ``goodput`` counts as there: workers that run, and machines that could run them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tests.bench.live import Watch
from tests.bench.standalone import Host

# As Spark's daemon, whose command says so, it forks a worker.
_DAEMON = "import os, time; pid = os.fork(); print(pid or 'worker', flush=True); time.sleep(60)"


@pytest.fixture
def host() -> Iterator[Host]:
    """A daemon with another below it, and its worker below that one."""
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_DAEMON!r}, 'daemon'])"
    daemon = subprocess.Popen([sys.executable, "-c", inner], start_new_session=True)
    host = Host(daemon)
    ends = time.monotonic() + 30
    while not host.pythons:
        assert time.monotonic() < ends
        time.sleep(0.05)
    yield host
    host.kill()


def becomes(watch: Watch, workers: int, machines: int) -> bool:
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        if watch.samples and (watch.samples[-1].workers, watch.samples[-1].machines) == (workers, machines):
            return True
        time.sleep(0.02)
    return False


def test_a_stopped_worker_is_no_machine_and_a_killed_one_is_a_machine_without_a_worker(host: Host) -> None:
    with Watch(SimpleNamespace(hosts=[host])) as watch:  # type: ignore[arg-type]
        assert becomes(watch, 1, 1)
        (worker,) = host.pythons
        os.kill(worker, signal.SIGSTOP)
        assert becomes(watch, 0, 0)
        os.kill(worker, signal.SIGCONT)
        assert becomes(watch, 1, 1)
        os.kill(worker, signal.SIGKILL)
        assert becomes(watch, 0, 1)
        host.kill()
        assert becomes(watch, 0, 0)
