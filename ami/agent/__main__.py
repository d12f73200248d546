"""The agent of a node, which runs on every one: it hears that EC2 takes the node back, and ends it in time.

    python -I agent ROLE [SECONDS]      as root, by sparknet-agent.service; SECONDS between two looks

    notices.py     the metadata service says that EC2 takes the node back: Spark and the training are told
    idleness.py    no job for so long: the node ends itself, as it does when the cluster's master is gone
    metadata.py    the metadata service, and the time by its clock

Nothing listens here, and nothing is sent to another node: what it has to say is in files. It needs
Python's standard library alone, and no answer of anybody may end it.
"""

import sys
import time
from pathlib import Path

import idleness
import notices
from metadata import Metadata
from node import Node

EVERY_SECONDS = 5.0  # as AWS advises: a notice comes two minutes before the end
WAIT_SECONDS = 60.0  # until the metadata service answers, early in a boot


def main(role, seconds=EVERY_SECONDS):
    node, metadata = Node.here(role), Metadata()
    metadata.wait(WAIT_SECONDS)
    watchers = [notices.Watcher(node, metadata), idleness.watcher(node, metadata)]
    node.say(f"watches, as a {role}")
    said = {}
    while True:
        for watcher in watchers:
            try:
                watcher.look()
                error = ""
            except Exception as wrong:  # noqa: BLE001 - the next look may succeed, and the others must go on
                error = f"{type(wrong).__name__}: {wrong}"
            if error and error != said.get(watcher):
                node.say(error)
            said[watcher] = error
        time.sleep(float(seconds))


if __name__ == "__main__":
    if Path(sys.argv[0]).name != "agent":
        sys.exit("run the folder: python -I agent ROLE")
    main(*sys.argv[1:])
