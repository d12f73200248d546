"""shutdown, reboot, poweroff: signal the host's init, now or after some minutes; ``-c`` cancels it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(os.environ.get("SPARKNET_ROOT") or "/")
PENDING = ROOT / "run/shutdown.pid"


def main(name: str, arguments: list[str]) -> int:
    with (ROOT / "var/log/stand-ins.log").open("a") as log:
        log.write(time.strftime("%Y-%m-%dT%H:%M:%S ") + " ".join([name, *arguments]) + "\n")
    cancel()
    if "-c" in arguments:
        return 0
    restart = name == "reboot" or "-r" in arguments or "--reboot" in arguments
    number = signal.SIGHUP if restart else signal.SIGTERM
    seconds = delay_seconds(name, arguments)
    if seconds == 0:
        os.kill(int((ROOT / "run/init.pid").read_text()), number)
        return 0
    waiting = subprocess.Popen(  # init takes it over when this process ends
        ["/bin/sh", "-c", f'sleep {seconds} && kill -{number} "$(cat {ROOT}/run/init.pid)"'],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    PENDING.write_text(str(waiting.pid))
    return 0


def delay_seconds(name: str, arguments: list[str]) -> int:
    """``+minutes`` or ``now``; shutdown waits a minute by default, the other two do not."""
    times = [argument for argument in arguments if argument == "now" or argument.lstrip("+").isdigit()]
    if not times:
        return 60 if name == "shutdown" else 0
    return 0 if times[0] == "now" else int(times[0]) * 60


def cancel() -> None:
    with contextlib.suppress(OSError, ValueError):
        os.killpg(int(PENDING.read_text()), signal.SIGKILL)
        PENDING.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
