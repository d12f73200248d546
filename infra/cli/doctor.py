"""The verbs doctor, which looks for what is wrong, and authorize, which mends the most frequent of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from infra.cli import format, options
from infra.cli.local import close_if_empty
from infra.cli.options import option
from infra.cli.target import Target
from infra.interrupts import interrupts_held
from infra.spec import GPU_TYPES, MASTER_TYPE, Network

if TYPE_CHECKING:
    from infra.cloud import Cloud
    from infra.doctor import Finding

MARKS = {"ok": "ok   ", "note": "NOTE ", "wrong": "WRONG"}


@click.command()
@options.reaches_a_cluster
@options.decorate(options.of_cluster("slaves", "instance-type", "master-instance-type"))
@options.JSON
def doctor(where: Target, as_json: bool, **values: Any) -> int:
    """Look for what is wrong: credentials, permissions, quotas, keys, clocks, ways to nodes, leftovers.

    Changes nothing. Leaves with status 0 if nothing is wrong, otherwise with that of the first finding. -s,
    -t and -m say for which cluster the quotas are to have room.
    """
    from infra import doctor as examining

    opened: list[Cloud] = []

    def reach() -> Cloud:
        with interrupts_held():  # a half-started server would be nobody's
            cloud = where.open(start=True)
        assert cloud is not None
        opened.append(cloud)
        return cloud

    wanted = examining.Wanted(
        workers=values["slaves"],
        instance_types=tuple(filter(None, values["instance_types"].split(","))) or GPU_TYPES,
        master_type=values["master_instance_type"] or MASTER_TYPE,
    )
    found = []
    try:
        looks = examining.examine(reach, wanted, home=where.cluster_files, identity_file=where.identity_file)
        for finding in looks:
            found.append(finding)
            if not as_json:
                _print(finding)
    finally:
        for cloud in opened:
            with interrupts_held():
                close_if_empty(where, cloud)
    return _conclude(found, as_json=as_json)


def _print(finding: Finding) -> None:
    click.echo(f"{MARKS[finding.level]} {finding.check:<12} {finding.said}")
    if finding.fix:
        click.echo(f"      {'':<12} fix: {finding.fix}")


def _conclude(found: list[Finding], *, as_json: bool) -> int:
    wrong = [one for one in found if one.level == "wrong"]
    if as_json:
        format.print_json({"findings": found, "wrong": len(wrong)})
    else:
        click.echo(f"{format.counted(len(wrong), 'thing')} wrong." if wrong else "Nothing is wrong.")
    return wrong[0].status if wrong else 0


@click.command()
@options.names_a_cluster
@options.reaches_a_cluster
@options.decorate(options.of_cluster("authorized-address", "open-to-the-world"))
@option("--keep", is_flag=True, help="Those that were let in before stay so.")
def authorize(where: Target, authorized_address: str, open_to_the_world: bool, keep: bool) -> None:
    """Let this machine's present address use ssh on the nodes, in the place of those that could before."""
    from infra import access

    Network(authorized_address=authorized_address, open_to_the_world=open_to_the_world)  # or a UsageError
    cloud = where.require()
    address = authorized_address or cloud.caller_address()
    others = access.authorize(cloud, where.name, address, keep=keep)
    no_more = f", and no longer {', '.join(others)}" if others else ""
    click.echo(f"{address} may use ssh on the nodes of {where.name}{no_more}.")
