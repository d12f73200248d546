"""A folder of results in which not everything is a file."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def make_odd_results(folder: Path) -> dict[str, str]:
    """Files, and things that are none; what of them is to be left out, with its kind."""
    (folder / "deep").mkdir(parents=True)
    (folder / "net.bin").write_text("weights")
    (folder / "deep/it's a log").write_text("said")
    (folder / "empty").mkdir()
    (folder / "elsewhere.txt").symlink_to(folder.parent / "outside.txt")
    (folder.parent / "outside.txt").write_text("outside")
    (folder / "latest").symlink_to("net.bin")
    os.mkfifo(folder / "deep/queue")
    (folder / "gone").symlink_to("nowhere")
    (folder / "deep/round").symlink_to("..")
    place = os.open(folder, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{place}/door.sock")  # the folder's own path may be too long
    os.close(place)
    return {
        "deep/queue": "a FIFO",
        "gone": "a link that leads nowhere",
        "deep/round": "a link into itself",
        "door.sock": "a socket",
    }


def check_odd_results(target: Path) -> None:
    there = {str(path.relative_to(target)) for path in target.rglob("*")}
    assert there == {"net.bin", "deep", "deep/it's a log", "empty", "elsewhere.txt", "latest"}
    assert (target / "elsewhere.txt").read_text() == "outside"
    assert (target / "latest").read_text() == "weights"
