"""The models of AWS that botocore reads, read once for all sessions of a process.

Each session reads the model of EC2 (4 MB of JSON) and the list of endpoints anew. moto makes four sessions,
which was a third of the time that the embedded cloud took to start, and we make one for each pair of keys.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from botocore.loaders import JSONFileLoader, Loader


def install() -> None:
    """Have every session of this process read files by way of ``SharedFileLoader``."""
    Loader.FILE_LOADER_CLASS = SharedFileLoader


class SharedFileLoader(JSONFileLoader):  # type: ignore[misc]  # botocore has no types
    """Reads a file once; botocore shares what it has read among the clients of a session in the same way."""

    def load_file(self, file_path: str) -> Any:
        return _read(file_path)


@cache
def _read(file_path: str) -> Any:
    return JSONFileLoader().load_file(file_path)
