"""``sparknet db``: databases of pictures, made of any source, turned into each other, looked at.

sparknet db create photos photos_lmdb --size 256 --seed 1
sparknet db convert photos_lmdb s3://bucket/shards --format tar
sparknet db info photos_lmdb
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sparknet.cli.options import SIZE
from sparknet.cli.progress import Lines
from sparknet.errors import UsageError

_FORMATS = ["lmdb", "leveldb", "hdf5", "tar", "parquet", "folder"]
_ENDINGS = {
    "lmdb": ("lmdb",),
    "leveldb": ("leveldb",),
    "hdf5": ("hdf5", "h5"),
    "tar": ("tar", "tars", "shards", "webdataset"),
    "parquet": ("parquet",),
}


@click.group()
def db() -> None:
    """Databases of pictures: LMDB, LevelDB, HDF5, tar shards, Parquet, folders."""


def reading_options(command: Callable[..., None]) -> Callable[..., None]:
    """How the source is read."""
    for option in reversed(
        (
            click.option(
                "--kind", metavar="KIND", help="What SOURCE is, where it cannot be told by looking."
            ),
            click.option("--split", type=click.Choice(["train", "test"]), default="train", show_default=True),
            click.option("--labels", metavar="FILE", help="A CSV or list that names the pictures' labels."),
        )
    ):
        command = option(command)
    return command


def writing_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where and how the target is written."""
    for option in reversed(
        (
            click.option(
                "--format",
                "format_",
                type=click.Choice(_FORMATS),
                help="Of TARGET.  [default: as the end of its name says, else lmdb]",
            ),
            click.option(
                "--shard-records",
                type=click.IntRange(1),
                default=1000,
                show_default=True,
                help="In each file.",
            ),
            click.option("--overwrite", is_flag=True, help="Begin anew where something is there already."),
        )
    ):
        command = option(command)
    return command


@db.command()
@click.argument("source")
@click.argument("target")
@click.option("--size", type=SIZE, help="Resize to SIDE, or HEIGHTxWIDTH; proportions are not kept.")
@click.option("--gray", is_flag=True, help="Make the pictures grey.")
@click.option(
    "--seed", type=click.IntRange(0), help="Shuffle the records by this seed.  [default: keep order]"
)
@click.option(
    "--encoding",
    type=click.Choice(["raw", "png", "jpeg", "keep"]),
    help="Raw pixels, files, or what SOURCE has.  [default: raw; png for tar, parquet and folder]",
)
@click.option("--quality", type=click.IntRange(1, 100), default=95, show_default=True, help="Of JPEG.")
@reading_options
@writing_options
def create(
    source: str,
    target: str,
    size: tuple[int, int] | None,
    gray: bool,
    seed: int | None,
    encoding: str | None,
    quality: int,
    format_: str | None,
    **options: Any,
) -> None:
    """Write the pictures of SOURCE, in any form, into the database TARGET.

    SOURCE is a folder of pictures by class, or with a CSV of labels; tar shards, Parquet, LMDB, LevelDB,
    HDF5, CIFAR, MNIST, or ImageNet's archives: a path, s3://... or http(s)://... Run again after a
    kill, it goes on.
    """
    format_ = format_ or _format_of(target)
    usual = "raw" if format_ in ("lmdb", "leveldb", "hdf5") else "png"
    making = {"size": size, "channels": 1 if gray else None, "quality": quality, "seed": seed}
    _write(source, target, format_, {**making, "encoding": encoding or usual}, **options)


@db.command()
@click.argument("source")
@click.argument("target")
@reading_options
@writing_options
def convert(source: str, target: str, format_: str | None, **options: Any) -> None:
    """Write the records of SOURCE into TARGET as they are: files stay files, pixels pixels."""
    _write(source, target, format_ or _format_of(target), {"encoding": "keep"}, **options)


@db.command()
@click.argument("source")
@reading_options
def info(source: str, kind: str | None, split: str, labels: str | None) -> None:
    """Say what is in SOURCE: how many records, their shape and labels."""
    from sparknet.db.info import info as look
    from sparknet.sources import open_source

    opened = open_source(source, kind=kind, split=split, labels=labels)  # type: ignore[arg-type]
    found = look(opened, source)
    click.echo(found.name)
    for name, column in found.columns.items():
        click.echo(f"{name}: {column}")
    if found.classes:
        click.echo(f"classes: {', '.join(found.classes[:10])}{', ...' if len(found.classes) > 10 else ''}")
    if found.labels:
        counts = [f"{label}: {count:,}" for label, count in list(found.labels.items())[:10]]
        more = ", ..." if len(found.labels) > 10 else ""
        click.echo(f"labels of the first {found.looked_at:,} records: {', '.join(counts)}{more}")
    if found.left_out:
        click.echo(f"left out when it was written: {found.left_out:,} pictures that could not be decoded")
    if not found.is_complete:
        raise UsageError(f"{source} is not complete: run the command that writes it again, and it goes on")


def _write(
    source: str,
    target: str,
    format_: str,
    making: dict[str, Any],
    *,
    kind: str | None,
    split: str,
    labels: str | None,
    shard_records: int,
    overwrite: bool,
) -> None:
    from sparknet.db import Making, create
    from sparknet.sources import open_source

    order = "bgr" if format_ in ("lmdb", "leveldb", "hdf5") else "rgb"
    opened = open_source(source, kind=kind, split=split, labels=labels)  # type: ignore[arg-type]
    click.echo(opened.name)
    made = create(
        opened,
        target,
        format_,  # type: ignore[arg-type]
        Making(order=order, **making),  # type: ignore[arg-type]
        shard_records=shard_records,
        overwrite=overwrite,
        progress=Lines(),
    )
    for sentence in made.named:
        click.echo(f"left out: {sentence}", err=True)
    if made.resumed_at:
        click.echo(
            f"went on at record {made.resumed_at:,}, where a run before this one had come to", err=True
        )
    lost = f"; {made.left_out:,} pictures left out that cannot be decoded" if made.left_out else ""
    click.echo(f"{made.records:,} records in {target}{lost}")


def _format_of(target: str) -> str:
    name = target.rstrip("/").rpartition("/")[2].lower()
    word = name.replace("-", "_").replace(".", "_").rpartition("_")[2]
    return next((format_ for format_, ends in _ENDINGS.items() if word in ends), "lmdb")
