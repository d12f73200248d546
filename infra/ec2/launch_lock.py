"""Launch lock: one launch of a cluster at a time, whichever machines it is started from.

The lock is a launch template that nothing is launched from, ``sparknet-NAME.launching``: EC2 makes one of a
name in a region, for whoever asks first. Its tags say who holds it, and how long it is valid. A token kept on
this machine shows that a lock is our own, left by a launch that was killed.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from infra.ec2 import tags
from infra.ec2.region import Region
from infra.ec2.tags import ClusterTags
from infra.errors import ClusterBusy, InfraError
from infra.events import Emit, Note
from infra.interrupts import interrupts_held

VALID_HOURS = 1.0  # a launch that takes longer is not going on any more
HOST = "sparknet:host"  # the machine that launches
FOLDER = "fences"  # of the tokens; the embedded cloud keeps it too, so it stays as it was named first
ATTEMPTS = 20  # to take a lock that was there and is gone a moment later
_ANY_CONTENT = {"InstanceType": "m6i.large"}  # a template must not be empty
_TAKEN = ("InvalidLaunchTemplateName.AlreadyExistsException",)
_GONE = ("InvalidLaunchTemplate*",)


@dataclass(frozen=True, kw_only=True)
class LaunchLock:
    """A lock as EC2 has it."""

    id: str
    token: str
    holder: str  # "user on host"
    since: str  # ISO 8601
    until: str  # ISO 8601; empty for one without a limit

    def is_valid(self, now: datetime) -> bool:
        """Whether its launch may still be going on."""
        return not self.until or datetime.fromisoformat(self.until) > now


@contextmanager
def acquired(region: Region, cluster: str, home: Path, emit: Emit) -> Iterator[str]:
    """Inside, nobody else launches ``cluster``; the lock's id.

    Raises ClusterBusy if somebody does. The lock is released whatever ends the body.
    """
    tokens = LocalTokens(home / FOLDER / region.name / cluster)
    lock = ""
    try:
        # an interrupt between EC2's answer and the assignment would leave a lock that nobody releases
        with interrupts_held():
            lock = acquire(region, cluster, tokens)
        yield lock
    finally:
        with interrupts_held():
            if lock:
                _release(region, lock, tokens, emit)


def name(cluster: str) -> str:
    return f"sparknet-{cluster}.launching"  # no cluster's name has a dot


def find(region: Region, cluster: str) -> LaunchLock | None:
    """Who launches ``cluster``, if anybody does."""
    filters = [*tags.of_cluster(cluster), {"Name": "launch-template-name", "Values": [name(cluster)]}]
    found = region.read("describe_launch_templates", Filters=filters)["LaunchTemplates"]
    if not found:
        return None
    known = tags.as_dict(found[0].get("Tags"))
    return LaunchLock(
        id=found[0]["LaunchTemplateId"],
        token=known.get(tags.GENERATION, ""),
        holder=f"{known.get(tags.OWNER, 'unknown')} on {known.get(HOST, 'an unknown machine')}",
        since=known.get(tags.CREATED, ""),
        until=known.get(tags.EXPIRES, ""),
    )


class LocalTokens:
    """The tokens of locks that were made on this machine and may still exist: a file with one a line."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def all(self) -> set[str]:
        return set(self._file.read_text(encoding="utf-8").split()) if self._file.exists() else set()

    def add(self, token: str) -> None:
        """To be called before the lock is made: a launch killed right afterwards is still recognised."""
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(f"{token}\n")

    def forget(self) -> None:
        self._file.unlink(missing_ok=True)
        for folder in (self._file.parent, self._file.parent.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def acquire(region: Region, cluster: str, tokens: LocalTokens) -> str:
    """The id of a new lock, in place of one that is ours or no longer valid. Raises ClusterBusy."""
    ours = tokens.all()
    other: LaunchLock | None = None
    for _ in range(ATTEMPTS):
        token = secrets.token_hex(16)
        tokens.add(token)
        made = _make(region, cluster, token)
        if made:
            return made
        other = find(region, cluster)
        if other is None:  # released meanwhile, or not listed yet
            region.sleep(0.5)
        elif other.token in ours or not other.is_valid(region.now()):
            # by its id: a lock of the same name that somebody else has made since then stays
            region.change("delete_launch_template", LaunchTemplateId=other.id, tolerate=_GONE)
        else:
            break
    if not ours:
        tokens.forget()
    who = f", by {other.holder} since {other.since[:19]}" if other else ""
    raise ClusterBusy(
        f"A launch of {cluster} is under way{who}; wait for it, or end it there with Ctrl-C (if that machine "
        f"is gone: sparknet-ec2 destroy --name {cluster})."
    )


def _make(region: Region, cluster: str, token: str) -> str:
    """The id of a new lock; empty if there is one."""
    cluster_tags = ClusterTags.new(
        cluster, token, max_hours=VALID_HOURS, extra={HOST: socket.gethostname()}, now=region.now()
    )
    answer = region.change(
        "create_launch_template",
        LaunchTemplateName=name(cluster),
        LaunchTemplateData=_ANY_CONTENT,
        TagSpecifications=cluster_tags.specification(("launch-template",)),
        ClientToken=cluster_tags.token("launch lock"),
        tolerate=_TAKEN,
    )
    return str(answer["LaunchTemplate"]["LaunchTemplateId"]) if answer else ""


def _release(region: Region, lock: str, tokens: LocalTokens, emit: Emit) -> None:
    """A lock that stays is no reason to fail: here its token is known, and elsewhere it expires."""
    try:
        region.change("delete_launch_template", LaunchTemplateId=lock, tolerate=_GONE)
    except InfraError as error:
        emit(Note(text=f"The mark that a launch was under way could not be removed: {error}"))
    else:
        tokens.forget()
