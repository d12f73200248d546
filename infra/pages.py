"""Pages: what of a cluster a browser can open, and whether what answers there is what it should be.

    the live page of a job   on the master's loopback, served by the driver; the job's folder has its address
    Spark's pages            the master's, and that of the application that runs

A port may have come to somebody else since: a page is shown only after it has said what it is.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from shlex import quote
from typing import Any
from urllib.parse import urlsplit

from infra.cloud import Cloud
from infra.errors import JobError
from infra.jobs.link import Link
from infra.jobs.listing import QUEUED, RUNNING, Job, of_link
from infra.jobs.script import PAGE
from infra.node.host import Host
from infra.node.spark import APPLICATION_PAGE, MASTER_PAGE, MASTER_PORT

ANSWER_SECONDS = 10.0
MOST_BYTES = 4 << 20

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page ``name`` at ``path`` of ``address``:``port``, as the master sees it.

    ``recognise`` is given what it answers at ``asked``, JSON, and says in a few words what it shows; None if
    it is not the page it should be.
    """

    name: str
    address: str
    port: int
    asked: str
    recognise: Callable[[Any], str | None]
    path: str = "/"

    def look(self, address: str, port: int) -> str | None:
        """What it shows, reached at ``address``:``port``: None if something else answers.

        Raises OSError if nothing does.
        """
        with _direct.open(f"http://{address}:{port}{self.asked}", timeout=ANSWER_SECONDS) as answer:
            try:
                return self.recognise(json.loads(answer.read(MOST_BYTES)))
            except (ValueError, KeyError, TypeError, AttributeError):
                return None


@dataclass(frozen=True, kw_only=True)
class Pages:
    """The ``pages`` there may be, and the master's ``host``. ``missing`` says why the first of all, the live
    page of a job, is not among them; "" if it is."""

    host: Host
    pages: tuple[Page, ...]
    missing: str = ""


def of_cluster(cloud: Cloud, name: str, job: str | None = None) -> Pages:
    """Of ``job``, by default the one that runs, and of Spark.

    Raises ClusterNotFound, SetupError without a running master, JobError for a job that does not run.
    """
    link = Link(cloud, name)
    chosen = _chosen(of_link(link), job)
    live = tuple(_live(link, chosen)) if chosen else ()
    missing = ""
    if chosen is None:
        missing = f"no job runs; {cloud.command('submit CifarApp', name)} starts one"
    elif not live:
        missing = f"{chosen.id} has no live page (yet)"
    return Pages(host=link.host, pages=(*live, *_sparks(link)), missing=missing)


def _chosen(jobs: list[Job], wanted: str | None) -> Job | None:
    running = [job for job in jobs if job.state == RUNNING]
    if wanted is None:
        return running[-1] if running else None
    found = next(job for job in jobs if job.id == wanted)
    if found.state == QUEUED:
        raise JobError(f"{wanted} waits for its turn: it has a page once it runs.")
    if found.state != RUNNING:
        raise JobError(
            f"{wanted} has ended, and its page with it; what it left has the same as report.html: "
            f"sparknet-ec2 results {wanted}."
        )
    return found


def _live(link: Link, job: Job) -> Iterator[Page]:
    file = quote(str(link.job(job.id) / PAGE))
    said = link.host.run(f"cat {file}", timeout_seconds=60, check=False).stdout.strip()
    url = urlsplit(said)
    if url.hostname and url.port:

        def recognise(about: Any) -> str:
            return f"{about['title']}, round {int(about['round'])} of {int(about['rounds'])}"

        yield Page(
            name=job.id,
            address=url.hostname,
            port=url.port,
            path=url.path,
            asked=f"{url.path}about",
            recognise=recognise,
        )


def _sparks(link: Link) -> Iterator[Page]:
    known: set[str] = set()  # the applications that the master has said it runs

    def master(about: Any) -> str | None:
        if about["url"] != f"spark://{link.address}:{MASTER_PORT}":
            return None
        known.update(application["id"] for application in about["activeapps"])
        return f"{about['aliveworkers']} workers"

    def application(about: Any) -> str | None:
        return next((one["name"] for one in about if one["id"] in known), None)

    yield Page(name="Spark master", address=link.address, port=MASTER_PAGE, asked="/json/", recognise=master)
    yield Page(
        name="Spark application",
        address=link.address,
        port=APPLICATION_PAGE,
        asked="/api/v1/applications",
        recognise=application,
    )
