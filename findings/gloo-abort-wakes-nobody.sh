#!/usr/bin/env bash
# torch.distributed's gloo, ending what waits for a peer that will never send (torch 2.13.0, CPU, one machine):
#   1. ProcessGroupGloo.abort() returns at once and wakes nobody: a thread in recv(...).wait() stays there until
#      the group's timeout.
#   2. A wait that is too late does: recv(...).wait(timeout=1 ms) for a message that nobody sends raises, and closes
#      all connections of the group. Whoever waits in it, here and at the peers, gets a RuntimeError within a second.
# With torch 2.13.0 (Python 3.11), output:
#   after abort() still waiting: [True, True]
#   after a wait that was too late: [False, False]
# Exits non-zero if that is no longer so. PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu makes torch smaller.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat >"$folder/abort.py" <<'PY'
import sys
import threading
from datetime import timedelta

import torch
import torch.distributed as dist

store = dist.HashStore()
groups = {}


def join(rank):
    options = dist.ProcessGroupGloo._Options()
    options._timeout = timedelta(seconds=60)
    options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
    groups[rank] = dist.ProcessGroupGloo(store, rank, 3, options)


def wait(rank, peer):
    try:
        groups[rank].recv([torch.zeros(8)], peer, 1).wait()
    except RuntimeError:
        pass


def run(calls):
    threads = [threading.Thread(target=call, args=given, daemon=True) for call, given in calls]
    for thread in threads:
        thread.start()
    return threads


for thread in run([(join, (rank,)) for rank in range(3)]):
    thread.join()
waiting = run([(wait, (0, 1)), (wait, (2, 0))])  # nobody sends


def alive():
    for thread in waiting:
        thread.join(2)
    return [thread.is_alive() for thread in waiting]


groups[0].abort()
aborted = alive()
try:
    groups[0].recv([torch.zeros(1)], 1, 2).wait(timedelta(milliseconds=1))
except RuntimeError:
    pass
late = alive()
print("torch", torch.__version__)
print("after abort() still waiting:", aborted)
print("after a wait that was too late:", late)
sys.exit(0 if (aborted, late) == ([True, True], [False, False]) else 1)
PY
"$folder/venv/bin/python" "$folder/abort.py"
