"""EC2 takes this node back: what its metadata announces, and who on this node has to know.

    spot/instance-action                    it ends at a moment, mostly two minutes from then
    events/recommendations/rebalance        it may be taken back before others

A node that is to end starts Spark's decommissioning, so that no task comes here any more, and then says so
in ``run/sparknet/notice``, a JSON object: ``action``, ``time``, and ``seconds``, how long that was from then.
The workers of a training look for that file between steps (sparknet/notice.py). The end of the worker's log
goes to the console, which EC2 keeps for a while after the end.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
"""

import json
import os
from contextlib import suppress
from datetime import datetime

FILE = "run/sparknet/notice"
LOG = "var/log/sparknet-worker.service.log"
LOG_BYTES = 4096


class Watcher:
    """Passes each notice on once."""

    def __init__(self, node, metadata):
        self._node, self._metadata = node, metadata
        self._heard = set()

    def look(self):
        """Ask the metadata service."""
        action = self._metadata.get("spot/instance-action")
        if action and self._is_news(action):
            self._taken_back(json.loads(action))
        advice = self._metadata.get("events/recommendations/rebalance")
        if advice and self._is_news(advice):
            self._node.say(f"EC2 may take this node back soon: {advice}")

    def _is_news(self, text):
        is_news = text not in self._heard
        self._heard.add(text)
        return is_news

    def _taken_back(self, notice):
        action, when = str(notice.get("action")), str(notice.get("time"))
        seconds = max(0.0, datetime.fromisoformat(when).timestamp() - self._metadata.now())
        self._node.say(f"EC2 takes this node back: {action} at {when}, in {seconds:.0f} s")
        if action not in ("terminate", "stop"):  # one that hibernates goes on where it was
            return
        if self._node.role == "worker":
            self._decommission()  # first: the task of a shard that is handed over must not come back here
        put_down(self._node.root / FILE, {"action": action, "time": when, "seconds": seconds})
        self._keep_log(f"sparknet: EC2 takes this node back: {action} at {when}\n")

    def _decommission(self):
        """Spark sends no more tasks here, and moves blocks away; those that run go on."""
        address = self._metadata.get("local-ipv4") or ""
        self._node.run("bash", str(self._node.ami / "decommission.sh"), address, "0")

    def _keep_log(self, head):
        with suppress(OSError):
            with (self._node.root / LOG).open("rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_BYTES))
                text = head.encode() + log.read()
            with (self._node.root / "dev/console").open("r+b", buffering=0) as console:
                console.write(text)


def put_down(file, content):
    """``file`` appears whole, for everybody to read."""
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    new.write_text(json.dumps(content) + "\n")
    new.chmod(0o644)
    new.rename(file)
