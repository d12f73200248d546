"""The classes of ImageNet's validation pictures as its development kit tells them.

    ILSVRC2012_devkit_t12.tar.gz
        data/ILSVRC2012_validation_ground_truth.txt    a number a line: of ILSVRC2012_val_00000001.JPEG, ...
        data/meta.mat                                  the synset of each number, MATLAB's format

The kit's numbers are not those of Caffe: here classes are numbered in the order of their synsets.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import PurePosixPath

from sparknet.errors import DataError
from sparknet.sources import files

GROUND_TRUTH, META = "validation_ground_truth.txt", "meta.mat"
ARCHIVES = (".tar.gz", ".tgz")
# The kit tells of more synsets than there are classes: those above them in WordNet have higher numbers.
_CLASSES = 1000


def is_devkit(url: str) -> bool:
    """Whether it is called as the kit is, or its file of the validation set."""
    name = url.rpartition("/")[2].lower()
    return name.endswith(GROUND_TRUTH) or ("devkit" in name and name.endswith(ARCHIVES))


def labels(url: str) -> dict[str, int]:
    """The class of each picture by its file's name: of the kit, or of its text file with ``meta.mat`` beside
    it. Raises DataError.
    """
    truth, meta = _from_archive(url) if url.lower().endswith(ARCHIVES) else _from_folder(url)
    synsets = _synsets(meta, url)
    numbers = _numbers(truth, url)
    wrong = next((number for number in numbers if number not in synsets), None)
    if wrong is not None:
        raise DataError(f"{url}: {META} does not tell which synset {wrong} is")
    order = {synset: k for k, synset in enumerate(sorted(synsets.values()))}
    return {
        f"ILSVRC2012_val_{place:08d}.JPEG": order[synsets[number]]
        for place, number in enumerate(numbers, start=1)
    }


def _from_archive(url: str) -> tuple[bytes, bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(files.read(url)), mode="r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                wanted = next((end for end in (GROUND_TRUTH, META) if name.endswith(end)), None)
                content = archive.extractfile(member) if wanted else None
                if wanted and content:
                    found[wanted] = content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{url} is cut short, or no archive: {error}") from None
    missing = [name for name in (GROUND_TRUTH, META) if name not in found]
    if missing:
        raise DataError(f"{url} has no {missing[0]} in it: it is not the kit of ILSVRC2012's classification")
    return found[GROUND_TRUTH], found[META]


def _from_folder(url: str) -> tuple[bytes, bytes]:
    meta = files.joined(url.rpartition("/")[0] or ".", META)
    if not files.exists(meta):
        raise DataError(
            f"{url} numbers classes as the kit's {META} does, which is not beside it: put it there, or give "
            "ILSVRC2012_devkit_t12.tar.gz itself"
        )
    return files.read(url), files.read(meta)


def _synsets(meta: bytes, url: str) -> dict[int, str]:
    """The synset of each class by its number."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DataError(
            f"{url}: reading the kit's {META} needs the package scipy (pip install scipy); Caffe's val.txt "
            "needs none"
        ) from None
    try:
        rows = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        pairs = [(int(row["ILSVRC2012_ID"]), str(row["WNID"])) for row in rows]
    except (KeyError, ValueError, TypeError, IndexError, NotImplementedError, OSError) as error:
        raise DataError(f"{url}: {META} is not that of the kit of ILSVRC2012: {error}") from None
    return {number: synset for number, synset in pairs if number <= _CLASSES}


def _numbers(truth: bytes, url: str) -> list[int]:
    lines = truth.decode(errors="replace").split()
    wrong = next((k for k, line in enumerate(lines) if not line.isdigit()), None)
    if wrong is not None:
        raise DataError(f'{url}: line {wrong + 1} is "{lines[wrong]}", not the number of a class')
    return [int(line) for line in lines]
