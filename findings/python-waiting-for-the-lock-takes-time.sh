#!/bin/bash
# CPython: a thread that waits for the interpreter's lock is not idle. It wakes every switch interval (5 ms) to
# ask for it again, so waiting itself takes processor time, which grows with the number of those that wait.
#
# A good guess is that threads that wait for the lock cost nothing until they have it, as with a mutex, so that
# a server with a thread for each connection is slow but wastes nothing. But take_gil() waits with a timeout:
# N threads that have something to do while another one computes wake 200 N times in a second. With 256
# workers that answered a driver together this was half of the driver's processor time; few threads, each with
# many connections, take as much for one of 256 as for one of 4.
#
# Exit status 0 as long as that is so.
set -euo pipefail
python3 - <<'PYTHON'
import resource
import sys
import threading
import time


def wakes(threads: int) -> float:
    """How often in a second all threads wake that wait for the lock, while one in C keeps it."""
    begin, numbers = threading.Barrier(threads + 1), list(range(40_000_000))
    waiting = [threading.Thread(target=begin.wait) for _ in range(threads)]
    for thread in waiting:
        thread.start()
    begin.wait()  # all of them want the lock now
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    sum(numbers)  # one call, which does not give the lock away
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    for thread in waiting:
        thread.join()
    return (after.ru_nvcsw - before.ru_nvcsw) / took


few, many = wakes(4), wakes(256)
print(f"Python {sys.version.split()[0]}: waiting threads wake {few:,.0f} times a second if there are 4, {many:,.0f} if 256")
sys.exit(0 if many > 20 * few and many > 10_000 else 1)
PYTHON
