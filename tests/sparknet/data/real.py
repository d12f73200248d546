"""The real data sets, where SPARKNET_DATA says they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def real_data() -> Path:
    """The folder, or a skip that says why."""
    folder = os.environ.get("SPARKNET_DATA")
    if not folder:
        pytest.skip("SPARKNET_DATA is not set: it names the folder of the real CIFAR-10 and MNIST")
    return Path(folder)


def oracle() -> Path:
    """Where numbers computed by real Caffe are, or a skip that says why."""
    folder = os.environ.get("SPARKNET_ORACLE")
    if not folder:
        pytest.skip("SPARKNET_ORACLE is not set: it names the folder of what real Caffe computed")
    return Path(folder)
