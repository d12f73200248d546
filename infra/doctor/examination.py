"""Examination: all that is looked at, in an order in which the cause comes before what it causes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from infra.cloud import Cloud
from infra.doctor import account, clusters, machine
from infra.doctor.account import Wanted
from infra.doctor.findings import WRONG, Finding, of_error, safely
from infra.errors import InfraError

Look = Callable[[], Iterable[Finding]]


def examine(
    reach: Callable[[], Cloud], wanted: Wanted, *, home: Path, identity_file: Path | None = None
) -> Iterator[Finding]:
    """Look at everything and say what was found, as it is found. Changes nothing.

    ``reach`` opens the cloud; where it or the credentials fail, what needs them is left out.
    """
    yield from safely("versions", machine.versions)
    yield from safely("folder", partial(machine.folder, home))
    yield from safely("keys", partial(machine.keys, home, identity_file))
    try:
        cloud = reach()
    except InfraError as error:
        yield of_error("credentials", error)
        return
    found = list(safely("credentials", partial(account.identity, cloud)))
    yield from found
    yield from safely("clock", partial(account.clock, cloud))
    if any(one.level == WRONG for one in found):
        return
    looks: dict[str, Look] = {
        "region": partial(account.region, cloud),
        "permissions": partial(account.permissions, cloud),
        "quota": partial(account.room, cloud, wanted),
        "network": partial(clusters.groups, cloud),
        "path": partial(clusters.paths, cloud),
        "orphans": partial(clusters.left_over, cloud),
    }
    for check, look in looks.items():
        yield from safely(check, look)
