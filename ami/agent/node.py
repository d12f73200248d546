"""This node: its folders, its role, and the few commands that the agent runs on it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

COMMAND_SECONDS = 60.0


@dataclass(frozen=True)
class Node:
    """``root`` is "/" on a machine of its own; ``role`` is "master" or "worker"."""

    root: Path
    role: str

    @classmethod
    def here(cls, role):
        return cls(Path(os.environ.get("SPARKNET_ROOT") or "/"), role)

    @property
    def ami(self):
        """Where the scripts of ami/ lie."""
        return self.root / "opt/sparknet/ami"

    def setting(self, name):
        """What ``lifetime.sh`` has put down for this node; empty if it has not."""
        try:
            return (self.root / "etc/sparknet" / name).read_text().strip()
        except OSError:
            return ""

    def run(self, *words):
        """What a command says; empty where it fails, which is put down."""
        ran = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
        if ran.returncode:
            self.say(f"{words[0]} {words[1] if words[1:] else ''} failed: {ran.stderr.strip()}")
            return ""
        return ran.stdout

    def say(self, text):
        """A line of the agent's log."""
        sys.stderr.write(f"sparknet-agent: {text}\n")
        sys.stderr.flush()

    def end(self, why):
        """Shut this node down, which terminates it."""
        self.say(f"ends this node: {why}")
        # found on the path: a host that shares its system with others has a shutdown of its own there
        self.run("shutdown", "-h", "now", why)
