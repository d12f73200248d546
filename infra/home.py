"""The folder of this tool on the user's machine: keys, known hosts, the configuration, the embedded cloud."""

from __future__ import annotations

import os
from pathlib import Path

HOME_VARIABLE = "SPARKNET_EC2_HOME"


def home() -> Path:
    """``$SPARKNET_EC2_HOME``, by default ``~/.sparknet-ec2``; it need not exist."""
    return Path(os.environ.get(HOME_VARIABLE) or "~/.sparknet-ec2").expanduser().absolute()
