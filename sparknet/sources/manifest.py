"""What is told beside records that this program wrote: how many there are, and what their labels mean.

``sparknet.json`` lies in the folder of a database or of shards. Other readers of these formats do not mind
it, and this one does without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sparknet.data.decoding import Order
from sparknet.errors import DataError
from sparknet.sources import files
from sparknet.sources.files import joined

NAME = "sparknet.json"
ATTRIBUTE = "sparknet"
"""Where it lies in an HDF5 file."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """``shards`` maps a file to how many records are in it; ``order`` is that of raw colours.

    ``settings`` are what the records were made with, ``left_out`` counts pictures that could not be read.
    While ``is_complete`` is false, somebody is still writing, or was killed.
    """

    records: int = 0
    shards: Mapping[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    order: Order | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    left_out: int = 0
    is_complete: bool = True

    def write(self, folder: str) -> None:
        """Raises DataError."""
        files.write(joined(folder, NAME), json.dumps(asdict(self), indent=1).encode())


def read(folder: str) -> Manifest | None:
    """The one in ``folder``, if there is one. Raises DataError for one that is damaged."""
    url = joined(folder, NAME)
    if files.is_http(url) or not files.exists(url):
        return None
    return parsed(files.read(url), url)


def parsed(text: str | bytes, url: str) -> Manifest:
    """What ``write`` has written; ``url`` is where. Raises DataError for one that is damaged."""
    try:
        values = json.loads(text)
        classes = values.pop("classes")
        return Manifest(classes=None if classes is None else tuple(classes), **values)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{url} is damaged ({error}): remove it, or write the records again") from None
