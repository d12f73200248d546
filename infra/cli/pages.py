"""The verb ui: the pages of a cluster, each with what it shows, at ports of this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from infra.cli import options
from infra.cli.options import option
from infra.cli.target import Target
from infra.errors import HostUnreachable, SetupError

if TYPE_CHECKING:
    from infra.node.tunnel import Client
    from infra.pages import Page, Pages

NAME_WIDTH = 20


@click.command()
@options.reaches_a_cluster
@option("--port", type=click.IntRange(0, 65535), default=0, help="Of this machine.  [default: any free ones]")
@option("--open", "opens", is_flag=True, help="Open the first page in a browser.")
@click.argument("job", required=False)
def ui(where: Target, job: str | None, port: int, opens: bool) -> None:
    """Show the live page of JOB (by default the one that runs), and Spark's, until Ctrl-C.

    \b
      sparknet-ec2 ui
      sparknet-ec2 ui CifarApp --open

    The first shows curves, workers, events, configuration and cost, and goes on when the job is started again
    with --resume. Each page is asked what it is before its address is named.
    """
    from infra import jobs, pages

    cloud = where.require()
    chosen = jobs.resolve(cloud, where.name, job) if job else None
    found = pages.of_cluster(cloud, where.name, chosen)
    if found.missing:
        click.echo(found.missing, err=True)
    with _reached(found, port) as (places, client):
        urls = list(_named(found, places))
        if not urls:
            raise SetupError(f"No page of {where.name} answers; sparknet-ec2 status --name {where.name}")
        sys.stdout.flush()
        if opens:
            click.launch(urls[0])
        if client is not None:
            click.echo("until Ctrl-C", err=True)
            client.wait()
            raise HostUnreachable(found.host.name, "the connection was lost; ui opens it again")


@contextmanager
def _reached(found: Pages, port: int) -> Iterator[tuple[Mapping[int, tuple[str, int]], Client | None]]:
    """Where this machine reaches each page, by its port on the master, and the client that leads there."""
    from infra.node.ssh import SSHHost
    from infra.node.tunnel import LOOPBACK, free_port, tunnel

    if not isinstance(found.host, SSHHost):  # its addresses are this machine's
        yield {page.port: (page.address, page.port) for page in found.pages}, None
        return
    mine = {page.port: free_port(port + place if port else 0) for place, page in enumerate(found.pages)}
    ways = {mine[page.port]: f"{page.address}:{page.port}" for page in found.pages}
    with tunnel(found.host, ways) as client:
        yield {there: (LOOPBACK, here) for there, here in mine.items()}, client


def _named(found: Pages, places: Mapping[int, tuple[str, int]]) -> Iterator[str]:
    """The address of every page that is what it should be, after it has been shown."""
    for page in found.pages:
        address, port = places[page.port]
        shows = _look(page, address, port)
        if shows is not None:
            url = f"http://{address}:{port}{page.path}"
            click.echo(f"{page.name:<{NAME_WIDTH}}  {url}  {shows}")
            yield url


def _look(page: Page, address: str, port: int) -> str | None:
    """What it shows; None if it is not there, or somebody else's, which is said."""
    try:
        shows = page.look(address, port)
    except OSError:
        return None  # as Spark's of a job that is not there
    if shows is None:
        click.echo(
            f"{page.name}: something else answers at port {page.port} of the master; not shown", err=True
        )
    return shows
