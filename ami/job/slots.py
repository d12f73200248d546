"""Prints the ids of those jobs that came before one and leave it too few workers; nothing if it can start.

    python -I -S slots.py FOLDER ADDRESS     the job's folder, and the address of Spark's master

A job holds as many workers as its file ``workers`` says (all: every one) from the moment it is started,
whether Spark knows of it yet or not. Applications that are no job of ours hold the workers whose cores Spark
has given them. Spark is asked at its page; where that does not answer, only jobs that want all workers are in
each other's way.
"""

import json
import math
import socket
import subprocess
import sys
from pathlib import Path

PAGE = 8080
SECONDS = 5.0
EVERY = "all"
MANY = 10**9


def read(file):
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def runs(folder):
    if not (folder / "pid").exists() or (folder / "exit_code").exists():
        return False
    script = Path(__file__).with_name("runs.sh")
    return subprocess.run(["bash", str(script), str(folder)], check=False).returncode == 0


def before(mine):
    """The folders of the jobs that run or wait, and came first."""
    ticket = int(read(mine / "ticket") or MANY)
    others = [one for one in mine.parent.iterdir() if one.is_dir() and one != mine and runs(one)]
    return sorted(
        (one for one in others if int(read(one / "ticket") or 0) < ticket), key=lambda one: one.name
    )


def ask(address):
    """What Spark's master says of itself; nothing if it does not answer."""
    try:
        with socket.create_connection((address, PAGE), timeout=SECONDS) as connection:
            connection.sendall(b"GET /json/ HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        return json.loads(answer.partition(b"\r\n\r\n")[2])
    except (OSError, ValueError):
        return {}


def wanted(folder):
    """How many workers a job may use; those that an older version started want all."""
    said = read(folder / "workers") or EVERY
    return MANY if said == EVERY else int(said)


def strangers(page, jobs):
    """Name and number of workers of each application that is no job."""
    living = [worker for worker in page.get("workers", []) if worker["state"] == "ALIVE"]
    each = max((worker["cores"] for worker in living), default=1)
    for one in page.get("activeapps", []):
        if one["name"] not in jobs and one.get("cores", 0) > 0:
            yield one["name"], math.ceil(one["cores"] / each)


def main(folder, address):
    mine, page = Path(folder).resolve(), ask(address)
    held = [(one.name, wanted(one)) for one in before(mine)]
    held += strangers(page, {one.name for one in mine.parent.iterdir()})
    total = sum(worker["state"] == "ALIVE" for worker in page.get("workers", [])) or MANY
    needed = min(wanted(mine), total)
    if needed + sum(count for _, count in held) > total:
        print("\n".join(name for name, _ in held))


if __name__ == "__main__":
    main(*sys.argv[1:])
