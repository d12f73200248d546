"""What every source of records is: named columns, and parts that are read where they are trained on.

    source = open_source("s3://bucket/shards", size=256)
    for part in source.parts(8):            # picklable
        for block in part.blocks():         # {"image": uint8 (n, 3, 256, 256), "label": int64 (n,)}

The records of all parts, one part after the other, are those of the source in its own order, whatever the
number of parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from sparknet.data.records import Column

Block = Mapping[str, NDArray[Any]]
"""Column name to (n, *shape): records that lie side by side, of all columns equally many."""

BLOCK_BYTES = 32 << 20
"""About how large a block is; a single record may be larger."""
BLOCK_RECORDS = 1000


class Part(Protocol):
    """Neighbouring records of a source; pickles, and knows where to read them."""

    def blocks(self) -> Iterator[Block]:
        """All its records, in order. Raises DataError naming file and record."""
        ...


class Source(Protocol):
    """Records in files of some kind, which nobody has read yet."""

    @property
    def name(self) -> str:
        """The sentence that says what this is and where it is from."""
        ...

    @property
    def schema(self) -> Mapping[str, Column]:
        """What is in a block."""
        ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """What the labels 0, 1, 2, ... mean, where that is known."""
        ...

    def parts(self, count: int) -> Sequence[Part]:
        """The records in ``count`` parts, as equal as their files allow.

        Raises DataError for fewer records than parts.
        """
        ...


def records_of_a_block(schema: Mapping[str, Column]) -> int:
    """How many records of these columns make a block."""
    size = sum(column.empty(1).nbytes for column in schema.values())
    return max(1, min(BLOCK_RECORDS, BLOCK_BYTES // max(size, 1)))
