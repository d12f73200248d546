"""What all tests of the trainer share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As many threads as Spark gives a task of one core: sums come out the same, and sooner."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def full_volume(tmp_path: Path) -> Iterator[Path]:
    """A volume of its own with room for 64 KiB; for tests marked ``rig``."""
    if os.geteuid():
        pytest.skip("mounting a volume needs root")
    folder = tmp_path / "volume"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
