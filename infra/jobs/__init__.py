"""Jobs: programs given to the cluster with spark-submit, on its master, independent of who gave them."""

from infra.jobs.delivery import Moved
from infra.jobs.link import JOBS
from infra.jobs.listing import Job, cancel, jobs, latest, resolve
from infra.jobs.logs import follow, log
from infra.jobs.request import Request
from infra.jobs.results import Results, fetch
from infra.jobs.submission import Submitted, goes_on, submit

__all__ = [
    "JOBS",
    "Job",
    "Moved",
    "Request",
    "Results",
    "Submitted",
    "cancel",
    "fetch",
    "follow",
    "goes_on",
    "jobs",
    "latest",
    "log",
    "resolve",
    "submit",
]
