"""Finds out what kind of records lie at a path or URL, and opens them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sparknet.caffe.layers.records import Lmdb
from sparknet.data import cifar10, cifar100, mnist
from sparknet.data.decoding import Decoding, Order, Size
from sparknet.errors import DataError, UsageError
from sparknet.sources import arrays, datum, files, folder, hdf5, imagenet, manifest, parquet, tar
from sparknet.sources.files import File, joined
from sparknet.sources.pictures import PictureSource, Samples
from sparknet.sources.source import Source

Kind = Literal["folder", "tar", "lmdb", "leveldb", "hdf5", "parquet", "cifar", "mnist", "imagenet"]
KINDS: tuple[Kind, ...] = (
    "folder",
    "tar",
    "lmdb",
    "leveldb",
    "hdf5",
    "parquet",
    "cifar",
    "mnist",
    "imagenet",
)
LISTS = (".csv", ".txt", ".tsv")


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What was asked for."""

    url: str
    split: str
    how: Decoding
    labels: str | None
    columns: tuple[str, ...] | Mapping[str, str] | None
    shape: tuple[int, int, int] | None


def open_source(
    url: str,
    *,
    kind: Kind | None = None,
    split: Literal["train", "test"] = "train",
    size: int | Size | None = None,
    channels: Literal[1, 3] | None = None,
    order: Order = "rgb",
    labels: str | None = None,
    columns: Sequence[str] | Mapping[str, str] | None = None,
    shape: tuple[int, int, int] | None = None,
) -> Source:
    """The records at a path, ``s3://``, ``http(s)://`` or what else fsspec opens.

    ``kind``      of files, where it cannot be told by looking: see ``KINDS``
    ``split``     of sets that have two halves: CIFAR, MNIST, ImageNet, folders with train/ and val/
    ``size``      of the pictures, (height, width), or one number for both; proportions are not kept
    ``channels``  3 or 1; None: as the first pictures have
    ``order``     of colours; "bgr" for published weights of Caffe. Raw pixels whose order nobody says stay
    ``labels``    a file that names the labels: a CSV or list for a folder, lines "name index" for ImageNet
    ``columns``   of a table, or {column: dataset} of HDF5
    ``shape``     (channels, height, width) of raw pictures in Parquet whose file does not say it

    Raises DataError if there is nothing, nothing that is known, or something is damaged, and UsageError for
    settings that cannot be.
    """
    if not str(url):
        raise UsageError("there is nothing to open: give a path or a URL")
    if kind is not None and kind not in KINDS:
        raise UsageError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
    if split not in folder.SPLITS:
        raise UsageError(f"split {split!r} is not train or test")
    both = (size, size) if isinstance(size, int) else size
    wanted = _Wanted(
        url=str(url),
        split=split,
        how=Decoding(size=both, channels=channels, order=order),
        labels=None if labels is None else str(labels),
        columns=tuple(columns) if isinstance(columns, Sequence) else columns,
        shape=shape,
    )
    return _OPENERS[kind or _kind_at(wanted.url)](wanted)


def _kind_at(url: str) -> Kind:
    if files.has_braces(url):
        return "parquet" if url.endswith(parquet.ENDING) else "tar"
    at = files.kind_of(url)
    name = url.rstrip("/").lower()
    if at == "file":
        return _kind_of_file(url, name)
    if name.endswith(parquet.ENDING):
        return "parquet"
    return _kind_of_folder(url)


def _kind_of_file(url: str, name: str) -> Kind:
    if name.endswith(tar.ENDING):
        return "imagenet" if imagenet.is_imagenet(url) else "tar"
    if name.endswith(hdf5.ENDINGS):
        return "hdf5"
    if name.endswith(".txt"):  # of Caffe's: HDF5 files, or pictures with their labels
        first = [*files.read(url).decode(errors="replace").split(maxsplit=1), ""][0]
        return "hdf5" if first.endswith(hdf5.ENDINGS) else "folder"
    if name.endswith((".mdb", ".lmdb")):
        return "lmdb"
    if name.endswith(parquet.ENDING):
        return "parquet"
    if name.endswith(".csv"):
        return "folder"
    if name.endswith(".bin"):
        return "cifar"
    raise DataError(
        f"{url} is a file of no kind that is known: tar, Parquet, HDF5, LMDB, a CSV that names pictures, or "
        "a batch of CIFAR; or say its kind"
    )


def _kind_of_folder(url: str) -> Kind:
    found = files.listing(url)
    database = datum.kind_among(found, url)
    if database is not None:
        return "lmdb" if database is Lmdb else "leveldb"
    endings: tuple[tuple[Kind, tuple[str, ...]], ...] = (
        ("tar", (tar.ENDING,)),
        ("parquet", (parquet.ENDING,)),
        ("hdf5", hdf5.ENDINGS),
        ("folder", folder.EXTENSIONS),
    )
    for kind, ends in endings:
        first = next((file for file in found if file.name.lower().endswith(ends)), None)
        if first is not None:
            return "imagenet" if kind == "tar" and _is_imagenet(found, first) else kind
    if arrays.cifar_at(url, "train"):
        return "cifar"
    if arrays.mnist_at(url, "train"):
        return "mnist"
    raise DataError(
        f"{url} has nothing in it that is known: pictures by class or with a CSV, tar shards, Parquet, LMDB, "
        "LevelDB, HDF5, CIFAR-10, CIFAR-100, MNIST, or ImageNet's archives"
    )


def _is_imagenet(found: Sequence[File], first: File) -> bool:
    return not any(file.name == manifest.NAME for file in found) and imagenet.is_imagenet(first.url)


def _open_folder(wanted: _Wanted) -> Source:
    root, labels = wanted.url, wanted.labels
    if root.lower().endswith(LISTS):
        root, labels = _parent(root), root
    listed = files.listing(root) if labels is None else None
    if labels is None and listed is not None:
        lists = [
            file.url
            for file in listed
            if file.name.lower().endswith(".csv") and _parent(file.url) == root.rstrip("/")
        ]
        labels = lists[0] if len(lists) == 1 else None
    elif labels is not None and not files.is_remote(labels) and not files.exists(labels):
        labels = joined(root, labels)
    found = folder.by_list(root, labels) if labels else folder.by_class(root, wanted.split, listed)
    root = found.samples.root
    return _pictures(
        wanted, found.samples, "the folder", found.classes, url=root, has_halves=root != wanted.url
    )


def _open_tar(wanted: _Wanted) -> Source:
    urls = files.expanded(wanted.url)
    told, root = None, wanted.url
    if len(urls) > 1 or urls[0].lower().endswith(tar.ENDING):
        found = [File(url, files.size_of(url)) for url in urls]
    else:
        root = _half_of(wanted.url, wanted.split)
        found = files.listing(root)
        told = manifest.read(root)
    shards = tar.shards_of(found, told.shards if told else None)
    if not shards:
        raise DataError(f"{wanted.url} has no tar shards in it")
    samples = tar.TarSamples(shards, told.order if told else None)
    what = f"{len(shards):,} tar shards of" if len(shards) > 1 else "the tar shard"
    classes = told.classes if told else None
    return _pictures(wanted, samples, what, classes, url=root, has_halves=root != wanted.url)


def _half_of(url: str, split: str) -> str:
    """The folder below ``url`` with the half that is wanted, where there are two; else ``url``."""
    tops = {
        file.url[len(url.rstrip("/")) + 1 :].split("/")[0]
        for file in files.listing(url)
        if file.name.lower().endswith(tar.ENDING)
    }
    half = next((name for name in folder.SPLITS[split] if name in tops), None)
    return joined(url, half) if half else url


def _open_database(wanted: _Wanted) -> Source:
    kind = datum.kind_at(wanted.url)
    if kind is None:
        raise DataError(f"{wanted.url} is neither an LMDB (data.mdb) nor a LevelDB (CURRENT)")
    told = manifest.read(wanted.url) if files.kind_of(wanted.url) == "folder" else None
    samples = datum.DatumSamples(wanted.url, kind, told.order if told else None)
    return _pictures(wanted, samples, f"the {kind.__name__.upper()}", told.classes if told else None)


def _open_hdf5(wanted: _Wanted) -> Source:
    urls = hdf5.files_at(wanted.url)
    if not urls:
        raise DataError(f"{wanted.url} has no HDF5 files in it ({', '.join(hdf5.ENDINGS)})")
    columns = wanted.columns
    if columns is not None and not isinstance(columns, Mapping):
        columns = {name: name for name in columns}
    is_folder = files.kind_of(wanted.url) == "folder"
    told = manifest.read(wanted.url) if is_folder else hdf5.told_in(wanted.url)
    classes = told.classes if told else None
    source = hdf5.Hdf5Source(f"HDF5 of {wanted.url}", urls, columns, classes)
    return _pictures(wanted, source, "HDF5 of", classes) if source.holds_pictures else source


def _open_parquet(wanted: _Wanted) -> Source:
    urls = files.expanded(wanted.url)
    if not files.has_braces(wanted.url) and files.kind_of(wanted.url) == "folder":
        urls = [file.url for file in files.listing(wanted.url) if file.name.endswith(parquet.ENDING)]
    if not urls:
        raise DataError(f"{wanted.url} has no Parquet files in it")
    rows = parquet.rows_of(urls)
    columns = None if wanted.columns is None else tuple(wanted.columns)
    if parquet.has_pictures(parquet.schema_at(urls[0])) and (columns is None or parquet.IMAGE in columns):
        samples = parquet.pictures(rows, wanted.shape)
        return _pictures(wanted, samples, "Parquet of", samples.names)
    total = sum(map(len, rows))
    return parquet.table(f"{total:,} records from Parquet of {wanted.url}", rows, columns)


def _open_cifar(wanted: _Wanted) -> Source:
    found = arrays.cifar_at(wanted.url, wanted.split)
    is_100 = found is not None and found.kind.startswith("cifar100")
    name, classes = ("CIFAR-100", cifar100.CLASSES) if is_100 else ("CIFAR-10", cifar10.CLASSES)
    return _arrays(wanted, name, classes, found)


def _open_mnist(wanted: _Wanted) -> Source:
    return _arrays(wanted, "MNIST", mnist.CLASSES, arrays.mnist_at(wanted.url, wanted.split))


def _arrays(
    wanted: _Wanted, name: str, classes: tuple[str, ...], samples: arrays.ArraySamples | None
) -> Source:
    if samples is None:
        raise DataError(f"{wanted.url} has no {name} in it, as its authors publish it")
    what = f"{name}'s {wanted.split} set in"
    return _pictures(wanted, samples, what, classes, has_halves=_is_folder(wanted.url))


def _open_imagenet(wanted: _Wanted) -> Source:
    urls, labels, has_halves = [wanted.url], wanted.labels, False
    if not wanted.url.lower().endswith(tar.ENDING):
        found = files.listing(wanted.url)
        urls = [file.url for file in found if file.name.lower().endswith(tar.ENDING)]
        halves = {
            half: [u for u in urls if any(f"_{name}" in u.rpartition("/")[2] for name in names)]
            for half, names in folder.SPLITS.items()
        }
        has_halves = all(halves.values())
        if has_halves:
            urls = halves[wanted.split]
        if labels is None and wanted.split == "test":
            labels = imagenet.labels_among(file.url for file in found)
    index = imagenet.index(urls, labels)
    samples = imagenet.ImageNetSamples(index.members)
    what = "ImageNet's archives at"
    return _pictures(wanted, samples, what, index.classes, has_halves=has_halves)


def _pictures(
    wanted: _Wanted,
    samples: Samples,
    what: str,
    classes: tuple[str, ...] | None,
    *,
    url: str = "",
    has_halves: bool = False,
) -> PictureSource:
    count = f"{len(samples):,} pictures"
    if classes is not None:
        count += f" in {len(classes):,} classes" if len(classes) != 1 else " in 1 class"
    name = f"{count} from {what} {url or wanted.url}"
    return PictureSource(name, samples, wanted.how, classes, wanted.split if has_halves else "")


def _is_folder(url: str) -> bool:
    return files.kind_of(url) == "folder"


def _parent(url: str) -> str:
    return url.rstrip("/").rpartition("/")[0] or "."


_OPENERS: Mapping[str, Callable[[_Wanted], Source]] = {
    "folder": _open_folder,
    "tar": _open_tar,
    "lmdb": _open_database,
    "leveldb": _open_database,
    "hdf5": _open_hdf5,
    "parquet": _open_parquet,
    "cifar": _open_cifar,
    "mnist": _open_mnist,
    "imagenet": _open_imagenet,
}
