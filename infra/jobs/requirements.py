"""Requirements: packages that a job needs beside the cluster's, installed once on all nodes for each content
of the file.

The master resolves and fetches them (ami/job/wheels.py) and keeps the wheels; the nodes install from there,
held to the SHA-256 that came over ssh, into an environment of their own on top of the cluster's
(ami/job/environment.sh).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import quote

from infra.cloud import Member, connect
from infra.errors import CommandFailed, HostsFailed, InfraError, SetupError, UsageError
from infra.jobs.link import Link
from infra.jobs.request import Request
from infra.node.host import Host, on_all, read_text, write_text

WHEELS = PurePosixPath("var/lib/sparknet/wheels")
ENVIRONMENTS = PurePosixPath("var/lib/sparknet/environments")
BUILD_SECONDS = 1800.0
INSTALL_SECONDS = 900.0
#: of pip, which the master of an embedded cloud has from this machine
SHARED = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_TRUSTED_HOST")
ARCHIVES = (".whl", ".tar.gz", ".zip")


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """A file of requirements with all that it includes, and the archives beside it that it names."""

    text: str
    archives: tuple[Path, ...]
    digest: str  # sixteen digits that identify all of it


def read(file: Path) -> Requirements:
    """Raises UsageError for a file that is not there, or names what cannot travel."""
    archives: list[Path] = []
    lines = list(_lines(file, archives, above=()))
    digest = hashlib.sha256("\n".join(lines).encode())
    for archive in archives:
        digest.update(archive.read_bytes())
    return Requirements(
        text="".join(f"{line}\n" for line in lines), archives=tuple(archives), digest=digest.hexdigest()[:16]
    )


def install(link: Link, request: Request) -> str:
    """The Python of the environment that has them, on every node. Raises SetupError, naming what pip said."""
    if request.requirements is None:
        return ""
    wanted = read(request.requirements)
    environment = link.path(ENVIRONMENTS) / wanted.digest
    wheels = link.path(WHEELS) / wanted.digest
    members = connect(link.cloud, link.name)
    if not all(on_all(members, lambda one: _is_complete(one.host, wanted.digest))):
        _build(link, request, wanted, wheels, environment)
        lock = read_text(link.host, wheels / "lock.txt")
        with _served(link, wheels) as address:
            _install_on_all(members, wanted.digest, address, lock)
    return str(environment / "bin/python")


def _is_complete(host: Host, digest: str) -> bool:
    mark = quote(str(host.root / ENVIRONMENTS / digest / "complete"))
    return host.run(f"test -e {mark}", timeout_seconds=60, check=False).exit_status == 0


def _build(
    link: Link, request: Request, wanted: Requirements, wheels: PurePosixPath, environment: PurePosixPath
) -> None:
    """Make the environment and the wheels on the master."""
    folder = link.path(WHEELS) / f"{wanted.digest}.from"
    write_text(link.host, folder / "requirements.txt", wanted.text)
    for archive in wanted.archives:
        link.host.put(archive, folder / archive.name)
    python = quote(str(environment / "bin/python"))
    words = (
        f"{link.script('environment.sh')} {quote(str(environment))} && cd {quote(str(folder))} && "
        f"{link.script('wheels.py')} build {quote(str(folder))}/requirements.txt {quote(str(wheels))} "
        f"{python}"
    )
    shared = {name: os.environ[name] for name in SHARED if os.environ.get(name)}
    env = shared if link.cloud.kind == "local" else {}
    try:
        link.host.run(words, env={**env, **_proxies(request)}, timeout_seconds=BUILD_SECONDS)
    except CommandFailed as error:
        raise SetupError(
            f"The packages of {request.requirements} cannot be had, so the job was not started. On the "
            f"master, pip says:\n{error.output.strip()}"
        ) from None


def _proxies(request: Request) -> dict[str, str]:
    """What the job has for the way to the internet, pip needs as well."""
    return {name: value for name, value in request.env.items() if name.lower().endswith("_proxy")}


@contextmanager
def _served(link: Link, wheels: PurePosixPath) -> Iterator[str]:
    """The address at which the wheels can be fetched meanwhile."""
    serve = f"{link.script('wheels.py')} serve {quote(str(wheels))} {link.address} {INSTALL_SECONDS:.0f}"
    begin = f"coproc {serve} 2>/dev/null; read -r port <&${{COPROC[0]}}; echo $port $COPROC_PID; disown"
    port, process = link.host.run(f"bash -c {quote(begin)}", timeout_seconds=60).stdout.split()
    try:
        yield f"{link.address}:{port}"
    finally:
        with suppress(InfraError):
            link.host.run(f"kill {process}", timeout_seconds=60, check=False)


def _install_on_all(members: list[Member], digest: str, address: str, lock: str) -> None:
    def work(member: Member) -> None:
        host = member.host
        folder, file = host.root / ENVIRONMENTS / digest, host.root / ENVIRONMENTS / f"{digest}.txt"
        write_text(host, file, lock)
        script = quote(str(host.root / "opt/sparknet/ami/job/environment.sh"))
        host.run(
            f"bash {script} {quote(str(folder))} {address} {quote(str(file))}",
            timeout_seconds=INSTALL_SECONDS,
        )

    try:
        on_all(members, work)
    except HostsFailed as error:
        raise SetupError(
            f"The requirements cannot be installed, so the job was not started: {error}"
        ) from None


def _lines(file: Path, archives: list[Path], above: tuple[Path, ...]) -> Iterator[str]:
    """The lines of a file with those that it includes in place, and archives by their names alone."""
    if file.resolve() in above:
        raise UsageError(f"--requirements {file} includes itself.")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"--requirements {file} cannot be read: {reason}.") from None
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word in ("-r", "--requirement"):
            yield from _lines(file.parent / rest.strip(), archives, (*above, file.resolve()))
        elif word in ("-e", "--editable", "-c", "--constraint"):
            raise UsageError(f"--requirements {file}: {word} cannot travel; name a version, or a wheel.")
        elif word and not word.startswith("#"):
            yield _archive(file.parent, line.strip(), archives)


def _archive(folder: Path, line: str, archives: list[Path]) -> str:
    """``line``, or, where it names an archive or a folder of this machine, the archive that travels."""
    path = folder / line.partition(" #")[0].strip()
    if line.startswith("-") or "://" in line:
        return line
    if path.is_file() and path.name.endswith(ARCHIVES):
        archives.append(path)
        return f"./{path.name}"
    if line.startswith((".", "/")):
        raise UsageError(f"{line} of the requirements is no wheel: build one of it, and name that.")
    return line
