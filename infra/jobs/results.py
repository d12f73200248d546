"""Results: what a job has left so far, copied to a folder here, as often as one likes.

    TARGET/...               what it wrote to SPARKNET_OUTPUT
    TARGET/work/...          what it made or changed where it ran
    TARGET/spark-events/...  Spark's event log, for a history server
    TARGET/job.log           all it said

A file that is here as it is there (by size and time of its last change) is not fetched again.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path, PurePosixPath
from shlex import quote

from infra.cloud import Cloud
from infra.errors import SetupError, UsageError
from infra.jobs.delivery import SILENCE_SECONDS, Moved, OnMoved
from infra.jobs.link import Link
from infra.jobs.received import UNFINISHED, Received, Wanted
from infra.jobs.secret_names import PATTERNS
from infra.node.host import Host, LeftOut

LIST_SECONDS = 600.0
#: what each of a job's folders is called here; SPARKNET_OUTPUT is the target itself
NAMES = {"output": "", "work": "work", "spark-events": "spark-events", "log": "job.log"}


@dataclass(frozen=True, kw_only=True)
class Results:
    """What a job has left: the files here, sorted; how many came now; and what cannot be fetched."""

    files: tuple[Path, ...]
    moved: Moved
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """What a job has left, as its master lists it."""

    wanted: tuple[Wanted, ...]
    folders: tuple[PurePosixPath, ...]  # that are empty
    left_out: tuple[LeftOut, ...]


def fetch(
    cloud: Cloud, cluster: str, job: str, target: Path, *, on_moved: OnMoved = lambda _: None
) -> Results:
    """Copy what the job has left so far to the folder ``target``; what of it is there already stays.

    A link that breaks is made again, and the copy goes on where it was; so does the next one after a copy
    that was cut off. Raises JobError for an unknown job, SetupError if something cannot be written here, and
    UsageError while somebody else copies to ``target``.
    """
    link = Link(cloud, cluster)
    folder = link.job(job)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            return _fetch(link, folder, target, on_moved)
    except OSError as error:
        raise SetupError(
            f"The results of {job} cannot be written to {target}: {error.strerror or error}; they are still "
            f"on the cluster: {cloud.command(f'results {job}', cluster)} --output ANOTHER."
        ) from None


def _fetch(link: Link, folder: PurePosixPath, target: Path, on_moved: OnMoved) -> Results:
    moved = Moved(files=0, all_files=0, bytes=0, all_bytes=0)

    def work(host: Host) -> tuple[_Listing, bool]:
        nonlocal moved
        found = _listing(link, host, folder)
        lacking = [one for one in found.wanted if not one.is_at(target)]
        received = Received(target, lacking, already=moved, on_moved=_touching(link, on_moved))
        try:
            if lacking:
                _receive(link, host, folder, received)
        finally:
            received.close()
            moved = received.moved
        return found, received.has_spoiled

    found, has_spoiled = link.keep(folder.name, work)
    if has_spoiled:  # from their beginning this time
        found, _ = link.keep(folder.name, work)
    for empty in found.folders:
        (target / empty).mkdir(parents=True, exist_ok=True)
    here = sorted(target / one.path for one in found.wanted if (target / one.path).is_file())
    return Results(files=tuple(here), moved=moved, left_out=found.left_out)


def _touching(link: Link, on_moved: OnMoved) -> OnMoved:
    """The link is alive as long as something comes."""

    def tell(moved: Moved) -> None:
        link.touched()
        on_moved(moved)

    return tell


def _listing(link: Link, host: Host, folder: PurePosixPath) -> _Listing:
    patterns = " ".join(quote(pattern) for pattern in PATTERNS)
    command = f"{link.script('results.py')} list {quote(str(folder))} {patterns}"
    lines = bytearray()
    host.pipe(command, source=(), sink=lines.extend, silence_seconds=LIST_SECONDS)
    rows = [json.loads(line) for line in lines.splitlines()]
    names = _names(row["path"] for row in rows if row["root"] == "output")
    places = [PurePosixPath(names[row["root"]], row["path"]) for row in rows]
    for place in places:
        if place.is_absolute() or ".." in place.parts:
            raise SetupError(f"{host.name}: {place} is nowhere that results may be written to.")
    both = list(zip(rows, places, strict=True))
    return _Listing(
        wanted=tuple(
            Wanted(root=row["root"], inside=row["path"], path=place, size=row["size"], time=row["time"])
            for row, place in both
            if "size" in row
        ),
        folders=tuple(place for row, place in both if "folder" in row),
        left_out=tuple(
            LeftOut(path=str(place), kind=row["left_out"]) for row, place in both if "left_out" in row
        ),
    )


def _names(outputs: Iterable[str]) -> dict[str, str]:
    """What the folders of a job are called here: as in NAMES, unless its output has such a name."""
    taken = {path.partition("/")[0] for path in outputs} - {""}
    return {
        root: next(one for one in chain([name], (f"{name}-{n}" for n in count(1))) if one not in taken)
        for root, name in NAMES.items()
    }


def _receive(link: Link, host: Host, folder: PurePosixPath, received: Received) -> None:
    command = f"{link.script('results.py')} send {quote(str(folder))}"
    host.pipe(command, source=_requests(received.wanted), sink=received.add, silence_seconds=SILENCE_SECONDS)


def _requests(wanted: Sequence[tuple[Wanted, int]]) -> Iterator[bytes]:
    """What is asked for, in parts of some hundred files."""
    for start in range(0, len(wanted), 500):
        lines = (
            json.dumps({"root": one.root, "path": one.inside, "offset": offset})
            for one, offset in wanted[start : start + 500]
        )
        yield ("\n".join(lines) + "\n").encode()


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """One copy to a folder at a time; what is unfinished there belongs to it."""
    unfinished = target / UNFINISHED
    unfinished.mkdir(exist_ok=True)
    with (unfinished / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"Results are being copied to {target} already; wait for that.") from None
        yield
        # after a copy that was cut off all stays, for the next one
        for part in unfinished.iterdir():
            part.unlink()
        unfinished.rmdir()
