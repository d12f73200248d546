"""Fence: one launch of a cluster at a time, whichever machines it is started from.

The fence is a launch template that nothing is launched from, ``sparknet-NAME.launching``: EC2 makes one of a
name in a region, for whoever asks first. Its tags say who holds it, and until when it counts. A word kept on
this machine proves that a fence is our own, left by a launch that was killed.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from infra.ec2 import tags
from infra.ec2.region import Region
from infra.ec2.tags import Stamp
from infra.errors import ClusterBusy, InfraError
from infra.events import Emit, Note
from infra.interrupts import interrupts_held

LEASE_HOURS = 1.0  # a launch that takes longer is not going on any more
HOST = "sparknet:host"  # the machine that launches
ATTEMPTS = 20  # to take a fence that was there and is gone a moment later
_SOMETHING = {"InstanceType": "m6i.large"}  # a template must not be empty
_TAKEN = ("InvalidLaunchTemplateName.AlreadyExistsException",)
_GONE = ("InvalidLaunchTemplate*",)


@dataclass(frozen=True, kw_only=True)
class Fence:
    """A fence as EC2 has it."""

    id: str
    word: str
    holder: str  # "user on host"
    since: str
    until: str

    def counts(self, now: datetime) -> bool:
        """Whether its launch may still be going on."""
        return not self.until or datetime.fromisoformat(self.until) > now


@contextmanager
def held(region: Region, cluster: str, home: Path, emit: Emit) -> Iterator[str]:
    """Inside, nobody else launches ``cluster``; the fence's id.

    Raises ClusterBusy if somebody does. The fence goes whatever ends the body.
    """
    words = _Words(home / "fences" / region.name / cluster)
    fence = ""
    try:
        with interrupts_held():
            fence = _take(region, cluster, words)
        yield fence
    finally:
        with interrupts_held():
            if fence:
                _give_back(region, fence, words, emit)


def name(cluster: str) -> str:
    return f"sparknet-{cluster}.launching"  # no cluster's name has a dot


def find(region: Region, cluster: str) -> Fence | None:
    """Who launches ``cluster``, if anybody does."""
    filters = [*tags.of_cluster(cluster), {"Name": "launch-template-name", "Values": [name(cluster)]}]
    found = region.read("describe_launch_templates", Filters=filters)["LaunchTemplates"]
    if not found:
        return None
    known = tags.as_dict(found[0].get("Tags"))
    return Fence(
        id=found[0]["LaunchTemplateId"],
        word=known.get(tags.GENERATION, ""),
        holder=f"{known.get(tags.OWNER, 'unknown')} on {known.get(HOST, 'an unknown machine')}",
        since=known.get(tags.CREATED, ""),
        until=known.get(tags.EXPIRES, ""),
    )


class _Words:
    """The words of fences that were made here and may still stand, a line each."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def all(self) -> set[str]:
        return set(self._file.read_text(encoding="utf-8").split()) if self._file.exists() else set()

    def add(self, word: str) -> None:
        """Before the fence is made: whoever is killed afterwards is known by it."""
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(f"{word}\n")

    def forget(self) -> None:
        self._file.unlink(missing_ok=True)
        for folder in (self._file.parent, self._file.parent.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _take(region: Region, cluster: str, words: _Words) -> str:
    ours = words.all()
    other: Fence | None = None
    for _ in range(ATTEMPTS):
        word = secrets.token_hex(16)
        words.add(word)
        made = _make(region, cluster, word)
        if made:
            return made
        other = find(region, cluster)
        if other is None:  # given back meanwhile, or not listed yet
            region.sleep(0.5)
        elif other.word in ours or not other.counts(datetime.now(UTC)):
            # by its id: a fence that somebody else has put up since stays
            region.change("delete_launch_template", LaunchTemplateId=other.id, tolerate=_GONE)
        else:
            break
    if not ours:
        words.forget()
    who = f", by {other.holder} since {other.since[:19]}" if other else ""
    raise ClusterBusy(
        f"A launch of {cluster} is under way{who}; wait for it, or end it there with Ctrl-C (if that machine "
        f"is gone: sparknet-ec2 destroy --name {cluster})."
    )


def _make(region: Region, cluster: str, word: str) -> str:
    """The id of a new fence; empty if there is one."""
    stamp = Stamp.new(cluster, word, max_hours=LEASE_HOURS, extra={HOST: socket.gethostname()})
    answer = region.change(
        "create_launch_template",
        LaunchTemplateName=name(cluster),
        LaunchTemplateData=_SOMETHING,
        TagSpecifications=stamp.specification(("launch-template",)),
        ClientToken=stamp.token("fence"),
        tolerate=_TAKEN,
    )
    return str(answer["LaunchTemplate"]["LaunchTemplateId"]) if answer else ""


def _give_back(region: Region, fence: str, words: _Words, emit: Emit) -> None:
    """A fence that stays is no reason to fail: here its word is known, and elsewhere it ends by itself."""
    try:
        region.change("delete_launch_template", LaunchTemplateId=fence, tolerate=_GONE)
    except InfraError as error:
        emit(Note(text=f"The mark that a launch was under way could not be removed: {error}"))
    else:
        words.forget()
