"""Teardown: taking down a cluster, on purpose or because its launch did not come to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from infra import bill, interrupts
from infra.bill import Bill
from infra.cloud import Cloud
from infra.ec2 import endings, keys, network, nodes, removal
from infra.ec2.cleanup import Resource
from infra.errors import InfraError, Interrupted, Leftovers
from infra.events import Emit, Note, Removed, phase

T = TypeVar("T")
GONE_SECONDS = 300.0  # a GPU instance takes a minute or two to shut down


def destroy(
    cloud: Cloud, name: str, emit: Emit, *, keep: str = "", known: Bill | None = None
) -> list[Resource]:
    """Remove all of the cluster but the resource ``keep``, in whatever state it is; what there was.

    ``known``: its bill, which is closed with it. Raises Leftovers, which says what the rest costs.
    """
    if known and known.group:
        network.mark_removing(cloud.region, known.group)
    with _interrupt_names_the_rest(cloud, name), phase(emit, "remove"):
        try:
            removed = removal.remove_all(
                cloud.region, name, emit, settle_seconds=cloud.poll_seconds, keep=keep
            )
        except Leftovers as error:
            raise Leftovers(f"{error}{_cost(cloud, name)}") from None
    # last: until nothing is left, the key may still be needed to look at a node
    keys.forget(cloud.home, cloud.region.name, name)
    if known:
        bill.close(cloud, known, "destroyed")
    return removed


def end(cloud: Cloud, name: str, ids: set[str], *, why: str = "removed") -> None:
    """End some nodes of the cluster and wait until they are gone. ``why`` is noted for ``status`` to say.

    Raises DeadlineExceeded, or Leftovers, once the others are gone, if EC2 protects some of them.
    """
    endings.say_why(cloud.region, sorted(ids), why)
    protected = nodes.terminate(cloud.region, sorted(ids))
    nodes.wait_gone(
        cloud.region,
        name,
        lambda node: node.id in ids.difference(protected),
        deadline_seconds=GONE_SECONDS,
        poll_seconds=cloud.poll_seconds,
    )
    if protected:
        cures = "".join(
            "\n  try: aws ec2 modify-instance-attribute --no-disable-api-termination --instance-id "
            f"{one} --region {cloud.region.name}"
            for one in protected
        )
        raise Leftovers(
            f"EC2 protects {', '.join(protected)} of {name} against termination; run the same command again "
            f"after{cures}"
        )


def undone_on_failure(
    cloud: Cloud,
    name: str,
    emit: Emit,
    work: Callable[[], T],
    *,
    kept: set[str],
    whole: bool,
    lock: str,
) -> T:
    """``work``; whatever ends it before its end, an interrupt too, first takes down what was made.

    ``whole``: all of the cluster but its launch lock; otherwise the nodes that are not ``kept``. A further
    interrupt is answered with a note that this goes on; the one after that ends it. Raises the error of
    ``work``, Leftovers with it if not everything could be removed, or Interrupted if that was not waited for.
    """

    def report(signal: str) -> None:
        emit(
            Note(
                text=f"{signal}: still removing what was made of {name}, which would go on costing money; "
                "wait, or interrupt once more to leave it as it is."
            )
        )

    def undo(error: BaseException) -> None:
        try:
            # half a cluster costs as much an hour as a whole one, and nobody would know of it
            if whole:
                _remove_whole(cloud, name, emit, lock)
            else:
                _remove_added(cloud, name, kept, emit)
        except (InfraError, OSError) as second:
            if whole:  # it never was a cluster that anybody could use: its key is of no use either
                keys.forget(cloud.home, cloud.region.name, name)
            raise Leftovers(
                f"{error}\nand not everything that had been made could be removed: {second}\n"
                f"  try: {cloud.command('destroy', name)}"
            ) from error

    return interrupts.undone_on_failure(work, undo, report)


@contextmanager
def _interrupt_names_the_rest(cloud: Cloud, name: str) -> Iterator[None]:
    """An interrupt in here is raised with the command that removes what is left."""
    try:
        yield
    except Interrupted as stop:
        raise Interrupted(
            f"{stop} before all of {name} was removed; {cloud.command('destroy', name)} removes the rest"
        ) from None


def _remove_whole(cloud: Cloud, name: str, emit: Emit, lock: str) -> None:
    emit(Note(text=f"The launch of {name} did not succeed; removing what it made."))
    removed = destroy(cloud, name, emit, keep=lock)
    emit(Note(text=f"{len(removed)} resources removed, 0 resources left."))


def _remove_added(cloud: Cloud, name: str, kept: set[str], emit: Emit) -> None:
    """Of a cluster that was ready before: the nodes that are new, a second master among them."""
    with _interrupt_names_the_rest(cloud, name):
        there = nodes.alive(nodes.describe(cloud.region, name))
        added = {node.id for node in there} - kept
        if not added:
            return
        emit(Note(text=f"The change of {name} did not succeed; removing the nodes it added."))
        end(cloud, name, added, why="the change that added it did not succeed")
    for identity in sorted(added):
        emit(Removed(kind="instance", id=identity))


def _cost(cloud: Cloud, name: str) -> str:
    """What is left of the cluster costs, as a line; empty where that cannot be asked, or is nothing."""
    found = bill.note(cloud, name)
    if not found or not found.cost.per_hour:
        return ""
    return f"\n  it costs ${found.cost.per_hour:.2f} an hour until then"
