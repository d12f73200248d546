"""The agent of a node (ami/agent): starts it, and puts down what it goes by.

etc/sparknet/master         the private address of the cluster's master
etc/sparknet/idle_minutes   after so long without a job the cluster ends; 0: never
etc/sparknet/expires        when the node ends (ami/deadline.sh), if that is not what its user data says
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from shlex import quote

from infra.node import bootstrap, user_data
from infra.node.host import Host, write_text
from infra.node.spark import CONF, START_UNIT

UNIT = "sparknet-agent"


def start(host: Host, role: str, *, master: str, idle_minutes: float) -> None:
    """Start the agent of a node of that ``role``, now and at each boot.

    One that runs goes on, unless it is of another version.
    """
    put_down(host, master=master, idle_minutes=f"{idle_minutes:g}")
    template = (bootstrap.AMI / f"systemd/{UNIT}.service.template").read_text()
    root = str(host.root).rstrip("/")
    text = bootstrap.render(template, {"ROOT": root, "ROLE": role, "BOUND_TO": _version()})
    draft = host.root / CONF / f"{UNIT}.service"
    write_text(host, draft, text)
    host.run(f"bash {_script(host, START_UNIT)} {quote(str(draft))} {UNIT}", timeout_seconds=60)


def put_down(host: Host, **settings: str) -> None:
    """Give the node these settings; the agent goes by them from its next look on."""
    words = " ".join(quote(word) for pair in settings.items() for word in pair)
    host.run(f"sudo bash {_script(host, 'settings.sh')} {words}", timeout_seconds=60)


def set_end(host: Host, expires: datetime | None) -> None:
    """Move the node's own end; None: it has none."""
    moment = user_data.moment(expires) if expires else user_data.NEVER
    host.run(f"sudo bash {_script(host, 'deadline.sh')} {quote(moment)}", timeout_seconds=60)


def _script(host: Host, name: str) -> str:
    return quote(str(host.root / bootstrap.ON_NODE / name))


def _version() -> str:
    digest = hashlib.sha256()
    for file in sorted((bootstrap.AMI / "agent").glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
