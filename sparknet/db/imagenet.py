"""ImageNet's archives made ready to train on: resized, shuffled, in tar shards with their labels.

    OUTPUT/train/shard-000000.tar ...    WebDataset's layout: a JPEG and its class
    OUTPUT/val/shard-000000.tar ...
    OUTPUT/mean.binaryproto              the mean image of the training set, blue first, as Caffe reads it
    OUTPUT/labels.txt                    the synset and number of each class
    OUTPUT/sparknet.json                 what it was made from, and whether all of it is there

The archives are read where they lie, by an index of where each picture begins. A shard is one unit of
work, done in any process or by any task: it reads its pictures, wherever in the archives the shuffling put
them. Its sums and counts are kept below OUTPUT/_progress until all is done, so that a run that was killed
goes on.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sparknet.caffe.io import array_to_blobproto
from sparknet.data.decoding import Decoding, Size, decode, encode
from sparknet.db.records import Record
from sparknet.db.sharded import packed_tar
from sparknet.db.target import digits_of
from sparknet.errors import DataError, TrainingError
from sparknet.sources import files, imagenet, manifest
from sparknet.sources.files import joined
from sparknet.sources.imagenet import Member
from sparknet.sources.manifest import Manifest
from sparknet.sources.pictures import NAMED

MEAN, LABELS, PROGRESS = "mean.binaryproto", "labels.txt", "_progress"

Half = Literal["train", "val"]
Sums = NDArray[np.uint32]
"""The pixels of a shard's pictures, added up: (3, height, width), red first."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be made: ``archives`` of each half, the file of ``labels`` that the second half needs.

    Raises DataError for a half without archives.
    """

    archives: dict[Half, tuple[str, ...]]
    labels: str | None
    output: str
    size: Size = (256, 256)
    quality: int = 95
    seed: int = 0
    shard_records: int = 1000

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "archives": {half: list(urls) for half, urls in self.archives.items()},
            "size": list(self.size),
            "quality": self.quality,
            "seed": self.seed,
            "shard_records": self.shard_records,
        }


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One shard: its pictures in their new order, the first of which has the number ``first``."""

    half: Half
    number: int
    first: int
    digits: int
    members: tuple[Member, ...] = field(repr=False)
    output: str
    size: Size
    quality: int

    @property
    def name(self) -> str:
        return f"shard-{self.number:06d}.tar"

    @property
    def note_url(self) -> str:
        """Where its outcome is kept until all is done."""
        return joined(self.output, f"{PROGRESS}/{self.half}-{self.number:06d}.npz")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What has become of a unit."""

    half: Half
    number: int
    records: int
    left_out: int
    named: tuple[str, ...]
    sums: Sums = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What was made, all units together; ``resumed`` of them were there already."""

    records: dict[Half, int]
    left_out: int
    named: tuple[str, ...]
    classes: int
    resumed: int


Run = Callable[[Callable[[Unit], Outcome], Sequence[Unit]], Iterable[Outcome]]
"""Does the units somewhere, in any order, and gives what became of them as they are done."""

Progress = Callable[[int, int], None]
"""(pictures so far, pictures in all)"""


def prepare(wanted: Wanted, run: Run, progress: Progress | None = None) -> Prepared:
    """Make the shards, the mean image and the labels. Going on after a kill is the same call again.

    Raises DataError for archives that are damaged, an output that holds something else, and if there is
    not one picture that can be decoded.
    """
    told = _begun(wanted)
    if told.is_complete:
        return _made_before(wanted, told)
    progress = progress or _silent
    train = imagenet.index(wanted.archives["train"])
    indexes: dict[Half, imagenet.Index] = {"train": train}
    if wanted.archives.get("val"):
        indexes["val"] = imagenet.index(wanted.archives["val"], wanted.labels)
    units = [unit for half, index in indexes.items() for unit in units_of(wanted, half, index.members)]
    total = sum(len(unit.members) for unit in units)
    told.write(wanted.output)
    outcomes = _done_before(wanted, units)
    resumed = len(outcomes)
    missing = [unit for unit in units if (unit.half, unit.number) not in outcomes]
    done = sum(outcome.records + outcome.left_out for outcome in outcomes.values())
    progress(done, total)
    for outcome in run(make, missing):
        outcomes[outcome.half, outcome.number] = outcome
        done += outcome.records + outcome.left_out
        progress(done, total)
    return _finish(wanted, told, indexes, list(outcomes.values()), resumed)


def units_of(wanted: Wanted, half: Half, members: Sequence[Member]) -> list[Unit]:
    """The shards of one half: its pictures, shuffled by the seed, so many in each."""
    order = np.random.default_rng([wanted.seed, half == "val"]).permutation(len(members)).tolist()
    step, digits = wanted.shard_records, digits_of(len(members))
    return [
        Unit(
            half=half,
            number=number,
            first=first,
            digits=digits,
            members=tuple(members[place] for place in order[first : first + step]),
            output=wanted.output,
            size=wanted.size,
            quality=wanted.quality,
        )
        for number, first in enumerate(range(0, len(order), step))
    ]


def make(unit: Unit) -> Outcome:
    """Read the pictures of a unit, in the order of their archives, and write its shard. Raises DataError."""
    places = {member: k for k, member in enumerate(unit.members)}
    records: list[Record | None] = [None] * len(unit.members)
    sums = np.zeros((3, *unit.size), np.uint32)
    named, left_out = [], 0
    for member, content in imagenet.contents(sorted(unit.members, key=lambda m: (m.url, m.offset))):
        place = places[member]
        try:
            pixels = decode(content, f"{member.url} {member.name}", Decoding(size=unit.size))
        except DataError as error:
            left_out += 1
            named += [str(error)] if left_out <= NAMED else []
            continue
        sums += pixels
        data = encode(pixels, "jpeg", quality=unit.quality)
        records[place] = Record(unit.first + place, member.name, data, member.label)
    good = [record for record in records if record is not None]
    files.write(joined(unit.output, f"{unit.half}/{unit.name}"), packed_tar(good, unit.digits))
    outcome = Outcome(
        half=unit.half,
        number=unit.number,
        records=len(good),
        left_out=left_out,
        named=tuple(named),
        sums=sums,
    )
    files.write(unit.note_url, _note(outcome))  # last: it says that the shard is whole
    return outcome


def in_processes(count: int) -> Run:
    """Do the units in ``count`` processes of this machine."""

    def run(function: Callable[[Unit], Outcome], units: Sequence[Unit]) -> Iterator[Outcome]:
        if count == 1 or len(units) < 2:
            yield from map(function, units)
            return
        # processes that are begun anew: clients of S3 do not survive a fork
        with ProcessPoolExecutor(min(count, len(units)), mp_context=get_context("spawn")) as pool:
            try:
                yield from pool.map(function, units)
            except BrokenProcessPool:
                raise TrainingError(
                    "a process that was making shards was killed, perhaps for want of memory: run it again, "
                    "with fewer workers, and it goes on"
                ) from None

    return run


def _finish(
    wanted: Wanted,
    told: Manifest,
    indexes: dict[Half, imagenet.Index],
    outcomes: list[Outcome],
    resumed: int,
) -> Prepared:
    """Write what is about all shards, and forget what was kept for a resumed run."""
    classes = indexes["train"].classes or ()
    records: dict[Half, int] = {}
    for half in indexes:
        shards = {f"shard-{o.number:06d}.tar": o.records for o in outcomes if o.half == half}
        records[half] = sum(shards.values())
        Manifest(records=records[half], shards=shards, classes=classes or None).write(
            joined(wanted.output, half)
        )
    if not records["train"]:
        raise DataError(f"{wanted.archives['train'][0]}: not one picture can be decoded")
    files.write(joined(wanted.output, MEAN), _mean([o for o in outcomes if o.half == "train"]))
    lines = "".join(f"{synset} {number}\n" for number, synset in enumerate(classes))
    files.write(joined(wanted.output, LABELS), lines.encode())
    left_out = sum(outcome.left_out for outcome in outcomes)
    done = replace(told, records=sum(records.values()), left_out=left_out, is_complete=True)
    done.write(wanted.output)
    files.remove_folder(joined(wanted.output, PROGRESS))
    named = [name for outcome in outcomes for name in outcome.named]
    return Prepared(
        records=records,
        left_out=left_out,
        named=tuple(named[:NAMED]),
        classes=len(classes),
        resumed=resumed,
    )


def _mean(outcomes: Sequence[Outcome]) -> bytes:
    """The mean image as Caffe's compute_image_mean writes it: (1, 3, height, width), blue first."""
    total = np.sum([outcome.sums.astype(np.float64) for outcome in outcomes], axis=0)
    mean = total / sum(outcome.records for outcome in outcomes)
    return array_to_blobproto(mean[None, ::-1].astype(np.float32)).SerializeToString()


def _begun(wanted: Wanted) -> Manifest:
    """Raises DataError if the output was begun with other settings, or holds something else."""
    settings = wanted.settings
    there = manifest.read(wanted.output) if files.exists(wanted.output) else None
    if there is not None and dict(there.settings) != settings:
        names = [name for name in settings if there.settings.get(name) != settings[name]]
        raise DataError(
            f"{wanted.output} was begun with another {' and '.join(names)}: choose another output"
        )
    if there is None and files.exists(wanted.output) and files.listing(wanted.output):
        raise DataError(f"{wanted.output} is there already and was not made by this: choose another output")
    return there or Manifest(settings=settings, is_complete=False)


def _made_before(wanted: Wanted, told: Manifest) -> Prepared:
    halves = {half: manifest.read(joined(wanted.output, half)) for half in wanted.archives}
    there = {half: half_told for half, half_told in halves.items() if half_told is not None}
    return Prepared(
        records={half: half_told.records for half, half_told in there.items()},
        left_out=told.left_out,
        named=(),
        classes=len(there["train"].classes or ()) if "train" in there else 0,
        resumed=sum(len(half_told.shards) for half_told in there.values()),
    )


def _done_before(wanted: Wanted, units: Sequence[Unit]) -> dict[tuple[Half, int], Outcome]:
    """The outcomes that a run before this one has kept."""
    folder = joined(wanted.output, PROGRESS)
    if not files.exists(folder):
        return {}
    there = {file.url for file in files.listing(folder)}
    kept = [_outcome(files.read(unit.note_url), unit) for unit in units if unit.note_url in there]
    return {(outcome.half, outcome.number): outcome for outcome in kept}


def _note(outcome: Outcome) -> bytes:
    said = {"records": outcome.records, "left_out": outcome.left_out, "named": outcome.named}
    content = io.BytesIO()
    np.savez_compressed(content, sums=outcome.sums, said=np.frombuffer(json.dumps(said).encode(), np.uint8))
    return content.getvalue()


def _outcome(note: bytes, unit: Unit) -> Outcome:
    with np.load(io.BytesIO(note), allow_pickle=False) as kept:
        said = json.loads(kept["said"].tobytes())
        sums = kept["sums"]
    said["named"] = tuple(said["named"])
    return Outcome(half=unit.half, number=unit.number, sums=sums, **said)


def _silent(_done: int, _total: int) -> None:
    """Tell nobody."""
