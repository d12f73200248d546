"""History: the nodes that a cluster has had, when each ran, and why it ended.

EC2 forgets an instance an hour after its end, and with it what it has cost. So whoever looks at a cluster
notes its nodes in two places:

    ~/.sparknet-ec2/history/REGION/CLUSTER.json    all of them, for every cluster of that name there has been
    tags of the security group                     the last that ended, and the dollars of all that have: for
                                                   other machines, and gone with the cluster (ec2/endings.py)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from infra.ec2 import nodes, tags
from infra.ec2.nodes import Node

FOLDER = "history"
MOST_LIVES = 50  # of clusters of one name, the newest


@dataclass(frozen=True, kw_only=True)
class Run:
    """One node from its start to its end; a node that was stopped and started again has several.

    Moments are ISO 8601. ``ended`` is empty while it runs; where nobody saw the end, it is the latest moment
    at which it can have been, and ``is_exact`` is False.
    """

    name: str
    id: str
    role: str
    instance_type: str
    zone: str
    purchase: str
    launched: str
    state: str = ""  # at the last look
    ended: str = ""
    why: str = ""
    is_exact: bool = True
    has_address: bool = True
    storage_per_hour: float = 0.0  # dollars, of its volumes
    seen: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.id, self.launched

    @property
    def is_gone(self) -> bool:
        """Whether the node itself is no more, which one that is stopped still is."""
        return bool(self.ended) and self.state not in ("stopping", "stopped")


@dataclass(frozen=True, kw_only=True)
class Life:
    """A cluster from its launch to its end. ``dollars``: what it had cost at the last look, at ``seen``."""

    cluster: str
    region: str
    created: str
    runs: tuple[Run, ...] = ()
    dollars: float = 0.0
    seen: str = ""
    destroyed: str = ""  # ISO 8601; empty while something of it is there
    bucket: str = ""  # of its jobs


def lives(home: Path, region: str, cluster: str) -> list[Life]:
    """Every cluster of that name that was looked at from this machine, the oldest first."""
    try:
        rows = json.loads(_file(home, region, cluster).read_text(encoding="utf-8"))
        return [_life(row) for row in rows]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # never written, or by another version
        return []


def all_lives(home: Path) -> list[Life]:
    """Those of all names and regions, the oldest first."""
    files = (home / FOLDER).glob("*/*.json")
    found = [one for file in files for one in lives(home, file.parent.name, file.stem)]
    return sorted(found, key=lambda life: life.created)


def life(home: Path, region: str, cluster: str, created: str) -> Life:
    """The one that began at ``created``; an empty one if this machine has not seen it."""
    known = lives(home, region, cluster)
    new = Life(cluster=cluster, region=region, created=created)
    return next((one for one in known if one.created == created), new)


def keep(home: Path, life: Life) -> None:
    """Write ``life`` in the place of what was known of it. A disk that is full keeps nobody from working."""
    others = [one for one in lives(home, life.region, life.cluster) if one.created != life.created]
    kept = sorted((*others, life), key=lambda one: one.created)[-MOST_LIVES:]
    file = _file(home, life.region, life.cluster)
    new = file.with_name(f".{file.name}.{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new.write_text(json.dumps([asdict(one) for one in kept], indent=1), encoding="utf-8")
        new.replace(file)


def merged(
    known: Iterable[Run], listed: Sequence[Node], *, storage_per_hour: float, now: datetime
) -> tuple[Run, ...]:
    """``known`` runs, and what EC2 lists now: the oldest first.

    ``storage_per_hour``: dollars of the volumes of one node that lives.
    """
    runs = {one.key: one for one in known}
    for node in listed:
        run = replace(_run(node, now), storage_per_hour=storage_per_hour)
        before = runs.get(run.key)
        runs[run.key] = _completed(run, before) if before and run.ended else run
    there = {(node.id, node.launched) for node in listed}
    done = (one if one.ended or one.key in there else _missed(one, now) for one in runs.values())
    return tuple(sorted(done, key=lambda run: (run.launched, run.role, run.name)))


def why(node: Node) -> str:
    """Why a node does not run, in words."""
    by = node.tags.get(tags.ENDED_BY)
    if by:
        return by
    if node.reason == "Client.InstanceInitiatedShutdown":
        end = tags.moment(node.expires)
        is_late = end is not None and (not node.ended or datetime.fromisoformat(node.ended) >= end)
        return "its --max-hours were over" if is_late else "it shut itself down"
    if node.state in ("stopping", "stopped") and node.reason.startswith("Client.User"):
        return "stopped by a user"
    return _REASONS.get(node.reason, node.reason)


_REASONS: Mapping[str, str] = {
    nodes.RECLAIMED: "reclaimed by EC2",
    "Server.SpotInstanceShutdown": "reclaimed by EC2",
    "Server.InsufficientInstanceCapacity": "EC2 had no capacity for it",
    "Server.InternalError": "it failed",
    "Client.InternalError": "it failed to start",
    "Client.VolumeLimitExceeded": "the account's limit of volumes was reached",
    "Client.UserInitiatedShutdown": "ended by a user",
    "Client.UserInitiatedHibernate": "hibernated by a user",
}


def _run(node: Node, now: datetime) -> Run:
    is_idle = node.state in nodes.IDLE
    return Run(
        name=node.name,
        id=node.id,
        role=node.role,
        instance_type=node.instance_type,
        zone=node.zone,
        purchase=node.purchase,
        launched=node.launched,
        state=node.state,
        ended=(node.ended or now.isoformat()) if is_idle else "",
        why=why(node) if is_idle else "",
        is_exact=bool(node.ended) or not is_idle,
        has_address=bool(node.public_ip) or is_idle,
        seen=now.isoformat(),
    )


def _completed(run: Run, before: Run) -> Run:
    """``run``, which has ended, with what EC2 does not tell of such a node and was known ``before``."""
    was_known = bool(before.ended) and not run.is_exact
    return replace(
        run,
        name=before.name,
        has_address=before.has_address,
        storage_per_hour=before.storage_per_hour,
        ended=before.ended if was_known else run.ended,
        is_exact=before.is_exact if was_known else run.is_exact,
        why=run.why or before.why,
    )


def _missed(run: Run, now: datetime) -> Run:
    """A run whose end nobody saw: EC2 has forgotten the node, so that it was gone an hour ago."""
    forgotten = now - timedelta(seconds=nodes.LISTED_SECONDS)
    if run.seen and datetime.fromisoformat(run.seen) > forgotten:
        return run  # listings lag behind: it was there a moment ago
    return replace(
        run, state="", ended=forgotten.isoformat(), is_exact=False, why=run.why or "nobody saw its end"
    )


def _file(home: Path, region: str, cluster: str) -> Path:
    return home / FOLDER / region / f"{cluster}.json"


def _life(row: dict[str, Any]) -> Life:
    return Life(**{**_known(Life, row), "runs": tuple(Run(**_known(Run, one)) for one in row["runs"])})


def _known(kind: type[Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Of ``row`` what ``kind`` has: a later version may have written more."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in row.items() if name in names}
