"""systemctl over unit files below ``$SPARKNET_ROOT/etc/systemd/system``: the same ExecStart, no systemd.

Known of a unit: ``Environment``, ``EnvironmentFile``, ``WorkingDirectory``, ``ExecStartPre``,
``ExecStart``, ``User`` (for root), ``Type=oneshot``, ``RemainAfterExit``, ``WantedBy``, and
``Restart=always`` or ``on-failure`` with ``RestartSec``. A timer with ``OnActiveSec=`` or ``OnBootSec=``
starts its service that much later; one with ``OnCalendar=`` a moment of UTC (2026-12-01 05:00:00 UTC), then,
or at once where that has passed, by the clock of the simulated cloud. Anything else is passed over, and so
are units that are not there to be masked, stopped or disabled.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(os.environ.get("SPARKNET_ROOT") or "/")
UNITS = ROOT / "etc/systemd/system"
STATE = ROOT / "run/units"
STOP_SECONDS = 5.0
CLOCK_SECONDS = 2.0  # how often the clock is looked at
TIME_UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "sec": 1,
    "min": 60,
    "m": 60,
    "h": 3600,
    "hr": 3600,
    "d": 86400,
    "": 1,
}


class Unit:
    """One unit file, and the process that runs it."""

    def __init__(self, name: str) -> None:
        self.name = name if "." in name else f"{name}.service"
        self.path = UNITS / self.name
        self.pid_file = STATE / f"{self.name}.pid"
        self.failed_file = STATE / f"{self.name}.failed"
        self.settings: dict[str, list[str]] = {}
        if self.path.exists():
            text = self.path.read_text().replace("\\\n", " ")
            for line in text.splitlines():
                key, equals, value = line.partition("=")
                if equals and not line.lstrip().startswith(("#", ";")):
                    self.settings.setdefault(key.strip(), []).append(value.strip())

    def one(self, key: str, default: str = "") -> str:
        return self.settings.get(key, [default])[-1]

    @property
    def pid(self) -> int | None:
        try:
            pid = int(self.pid_file.read_text())
            os.kill(pid, 0)
        except PermissionError:
            return pid  # root's, and asked about by somebody else
        except (OSError, ValueError):
            return None
        return pid

    @property
    def state(self) -> str:
        if self.pid is not None:
            return "active"
        return "failed" if self.failed_file.exists() else "inactive"

    def environment(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in self.settings.get("Environment", []):
            found.update(tuple(part.split("=", 1)) for part in shlex.split(line) if "=" in part)  # type: ignore[misc]
        for name in self.settings.get("EnvironmentFile", []):
            path = Path(name.lstrip("-"))
            if path.exists():
                lines = [
                    line for line in path.read_text().splitlines() if "=" in line and not line.startswith("#")
                ]
                for line in lines:
                    key, _, value = line.partition("=")
                    found[key.strip()] = " ".join(shlex.split(value))
        return found


def main(_name: str, arguments: list[str]) -> int:
    with (ROOT / "var/log/stand-ins.log").open("a") as log:
        log.write(time.strftime("%Y-%m-%dT%H:%M:%S ") + " ".join(["systemctl", *arguments]) + "\n")
    STATE.mkdir(parents=True, exist_ok=True)
    now = "--now" in arguments
    words = [argument for argument in arguments if not argument.startswith("-")]
    verb, names = (words[0], words[1:]) if words else ("list-units", [])
    if verb == "supervise":
        return supervise(Unit(names[0]))
    if verb == "start-enabled":
        names = sorted({link.name for link in UNITS.glob("*.wants/*")})
    return max((act(verb, Unit(name), now=now) for name in names), default=0)


def act(verb: str, unit: Unit, *, now: bool) -> int:
    """One verb on one unit; the exit status systemctl would give."""
    if verb in ("is-active", "is-enabled", "is-failed", "status", "show"):
        return report(verb, unit)
    if verb in ("stop", "disable", "mask", "kill", "unmask", "reset-failed"):
        return end(verb, unit, now=now)
    if not unit.path.exists():
        sys.stderr.write(f"Failed to {verb} {unit.name}: Unit {unit.name} not found.\n")
        return 5
    if verb in ("enable", "reenable"):
        enable(unit)
    if verb in ("restart", "try-restart", "reload-or-restart"):
        stop(unit)
    if verb in ("start", "restart", "reload-or-restart", "start-enabled") or (verb == "enable" and now):
        return start(unit)
    return 0


def report(verb: str, unit: Unit) -> int:
    enabled = any(UNITS.glob(f"*.wants/{unit.name}"))
    if verb == "is-enabled":
        sys.stdout.write(("enabled" if enabled else "disabled") + "\n")
        return 0 if enabled else 1
    if verb == "show":
        sys.stdout.write(f"ActiveState={unit.state}\nMainPID={unit.pid or 0}\n")
        return 0
    if verb == "status":
        sys.stdout.write(f"{unit.name}\n     Active: {unit.state}\n   Main PID: {unit.pid or 0}\n")
    else:
        sys.stdout.write(unit.state + "\n")
    return 0 if unit.state == ("failed" if verb == "is-failed" else "active") else 3


def end(verb: str, unit: Unit, *, now: bool) -> int:
    if verb in ("stop", "kill") or now:
        stop(unit)
    if verb in ("disable", "mask"):
        for link in UNITS.glob(f"*.wants/{unit.name}"):
            link.unlink()
    unit.failed_file.unlink(missing_ok=True)
    return 0


def enable(unit: Unit) -> None:
    for target in unit.one("WantedBy", "multi-user.target").split():
        link = UNITS / f"{target}.wants" / unit.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(unit.path)


def start(unit: Unit) -> int:
    if unit.pid is not None:
        return 0
    unit.failed_file.unlink(missing_ok=True)
    if unit.name.endswith(".service") and unit.one("Type") == "oneshot":
        return run_once(unit)
    with log_of(unit).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, "systemctl", "supervise", unit.name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    unit.pid_file.write_text(str(process.pid))
    return 0


def run_once(unit: Unit) -> int:
    for line in (*unit.settings.get("ExecStartPre", []), *unit.settings.get("ExecStart", [])):
        status = execute(unit, line).wait()
        if status != 0 and not line.startswith("-"):
            unit.failed_file.touch()
            sys.stderr.write(
                f"Job for {unit.name} failed because the control process exited with error code.\n"
            )
            return 1
    return 0


def stop(unit: Unit) -> None:
    """SIGTERM to the unit's whole session, then SIGKILL."""
    pid = unit.pid
    if pid is None:
        return
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and group_runs(pid):
            time.sleep(0.05)
    unit.pid_file.unlink(missing_ok=True)


def group_runs(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def supervise(unit: Unit) -> int:
    """Run the unit in this session, again as its ``Restart`` says. This process's end is the unit's end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the session got the signal, the service with it
    if unit.name.endswith(".timer"):
        wait_until(moment_of(unit))
        return start(Unit(unit.one("Unit") or unit.name.replace(".timer", ".service")))
    for line in unit.settings.get("ExecStartPre", []):
        execute(unit, line).wait()
    while True:
        status = execute(unit, unit.one("ExecStart")).wait()
        restart = unit.one("Restart", "no")
        if restart == "no" or (restart == "on-failure" and status == 0):
            break
        time.sleep(seconds_of(unit.one("RestartSec", "100ms")))
    if status != 0:
        unit.failed_file.touch()
    unit.pid_file.unlink(missing_ok=True)
    return status


def moment_of(timer: Unit) -> float:
    """When it elapses, in seconds since the epoch."""
    if timer.one("OnCalendar"):
        moment = datetime.strptime(timer.one("OnCalendar"), "%Y-%m-%d %H:%M:%S UTC")
        return moment.replace(tzinfo=UTC).timestamp()
    return now() + seconds_of(timer.one("OnActiveSec") or timer.one("OnBootSec") or "0")


def wait_until(moment: float) -> None:
    """The clock of the cloud may run faster than this machine's, and jump."""
    while (left := moment - now()) > 0:
        time.sleep(min(left, CLOCK_SECONDS))


def now() -> float:
    """The moment by the date of the metadata service's answers; by this machine's clock without one."""
    from email.utils import parsedate_to_datetime
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlsplit

    where = urlsplit(os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254")
    connection = HTTPConnection(where.hostname or "", where.port or 80, timeout=CLOCK_SECONDS)
    try:
        connection.request("HEAD", where.path or "/")
        told = parsedate_to_datetime(connection.getresponse().getheader("Date", "")).timestamp()
    except (OSError, HTTPException, TypeError, ValueError):
        return time.time()
    finally:
        connection.close()
    return told if abs(told - time.time()) > CLOCK_SECONDS else time.time()


def execute(unit: Unit, line: str) -> subprocess.Popen[bytes]:
    login = login_of(unit)
    environment = {**os.environ, **(login[1] if login else {}), **unit.environment()}
    words = [os.path.expandvars(word) for word in shlex.split(expand(line.lstrip("-@:+!"), environment))]
    with log_of(unit).open("ab") as log:
        return subprocess.Popen(
            words,
            env=environment,
            cwd=unit.one("WorkingDirectory") or ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            user=login[0] if login else None,
            group=login[0] if login else None,
            extra_groups=[login[0]] if login else None,
        )


def login_of(unit: Unit) -> tuple[int, dict[str, str]] | None:
    """Number and environment of the unit's ``User``, where that can be made so: as root."""
    if os.geteuid() != 0 or not unit.one("User"):
        return None
    account = pwd.getpwnam(unit.one("User"))
    return account.pw_uid, {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}


def expand(line: str, environment: dict[str, str]) -> str:
    """``$NAME`` and ``${NAME}`` as systemd expands them; unknown ones become empty."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: environment.get(found[1] or found[2], ""), line)


def log_of(unit: Unit) -> Path:
    return ROOT / "var/log" / f"{unit.name}.log"


def seconds_of(text: str) -> float:
    """``90``, ``1min 30s``, ``12h`` in seconds."""
    return sum(
        float(number) * TIME_UNITS.get(unit, 1) for number, unit in re.findall(r"([\d.]+)\s*([a-z]*)", text)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
