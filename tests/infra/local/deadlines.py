"""User data with a deadline in it, as nodes get it, by the clock of a simulated cloud."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from infra.local import LocalCloud
from infra.node import user_data
from infra.spec import ClusterSpec


def ends_in(cloud: LocalCloud, seconds: float, folder: Path) -> bytes:
    """A script of the user's, and a deadline so long after now."""
    own = folder / "own.sh"
    own.write_text("#!/bin/sh\ntouch $SPARKNET_ROOT/var/log/own\n")
    now = datetime.fromisoformat(cloud.control("POST", "clock", {})["now"])
    return user_data.document(ClusterSpec(user_data=own), expires=now + timedelta(seconds=seconds))
