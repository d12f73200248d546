"""No job for so long: the cluster ends itself. Its master decides, and the workers end when it is gone.

``etc/sparknet/idle_minutes`` says how long, ``etc/sparknet/master`` where the master is; both may change at
any time. A job is one that ``submit`` started, or an application that is known to Spark's master. A worker
sees the master at the port of its page: nobody has to tell it anything. Moments are those of the metadata
service.
"""

import json
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

PAGE, PAGE_SECONDS = 8080, 10.0
LOOK_SECONDS = 15.0  # between two looks, in the cluster's time
SILENCE_SECONDS = 120.0  # a master that is gone so long after its last job has ended itself
LOST_SECONDS = 900.0  # and one that is gone so long, or the idle time if that is longer, does not come back


def watcher(node, metadata):
    """The one for the node's role."""
    return (OfMaster if node.role == "master" else OfWorker)(node, metadata)


class OfMaster:
    """Ends the master once no job has run for the idle time."""

    def __init__(self, node, metadata):
        self._node, self._metadata = node, metadata
        self._busy = self._looked = metadata.now()

    def look(self):
        """Look for jobs, unless that was a moment ago."""
        now, limit = self._metadata.now(), idle_seconds(self._node)
        if not limit:
            self._busy = now
        elif now - self._looked >= LOOK_SECONDS:
            self._looked = now
            if self._has_job():
                self._busy = now
            elif now - self._busy >= limit:
                self._node.end(f"no job has run for {limit / 60:g} minutes, and --idle-minutes are over")

    def _has_job(self):
        jobs = self._node.root / "var/lib/sparknet/jobs"
        listed = self._node.run("bash", str(self._node.ami / "job/list.sh"), str(jobs))
        if any(line.split("\t")[2:3] == ["running"] for line in listed.splitlines()):
            return True
        page = page_of(self._node.setting("master"))
        return bool(page and page.get("activeapps"))


class OfWorker:
    """Ends a worker whose master is gone."""

    def __init__(self, node, metadata):
        self._node, self._metadata = node, metadata
        self._seen = self._busy = self._looked = metadata.now()

    def look(self):
        """Look for the master, unless that was a moment ago."""
        now, limit = self._metadata.now(), idle_seconds(self._node)
        if not limit:
            self._seen = self._busy = now
        elif now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._note(page_of(self._node.setting("master")), now)
            silence, idle = now - self._seen, now - self._busy
            is_over = silence >= SILENCE_SECONDS and idle >= limit
            if is_over or silence >= max(LOST_SECONDS, limit):
                self._node.end(f"the cluster's master has been gone for {silence / 60:.0f} minutes")

    def _note(self, page, now):
        if page is not None:
            self._seen = now
            if page.get("activeapps"):
                self._busy = now


def idle_seconds(node):
    """The idle time; 0 for never."""
    try:
        return float(node.setting("idle_minutes") or 0) * 60
    except ValueError:
        return 0.0


def page_of(address):
    """What Spark's master at ``address`` says of itself; None if it does not answer."""
    try:
        opener = build_opener(ProxyHandler({}))
        with opener.open(f"http://{address}:{PAGE}/json/", timeout=PAGE_SECONDS) as answer:
            return json.loads(answer.read())
    except (TimeoutError, URLError, OSError, ValueError):
        return None
