"""Samples of files that can only be read from front to back, in another order: through a file on the disk."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sparknet.errors import DataError
from sparknet.sources.pictures import Sample, Samples


def spooled(samples: Samples, order: NDArray[np.int64]) -> Iterator[Sample]:
    """The samples at the places ``order``. All of them are copied to a temporary file first.

    Raises DataError if there is no space for it (TMPDIR says where it is).
    """
    with tempfile.TemporaryFile() as file:
        places = []
        try:
            for sample in samples.part(slice(0, len(samples))):
                places.append(file.tell())
                pickle.dump(sample, file, protocol=5)
        except OSError as error:
            raise DataError(
                f"records cannot be shuffled in {tempfile.gettempdir()}: {error.strerror}; set TMPDIR to a "
                "larger disk"
            ) from None
        for place in order.tolist():
            file.seek(places[place])
            yield pickle.load(file)
