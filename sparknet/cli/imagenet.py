"""``sparknet imagenet``: ImageNet's archives made ready to train on.

sparknet imagenet prepare s3://bucket/ilsvrc2012 --output s3://bucket/imagenet
python apps/ImageNetApp.py --data s3://bucket/imagenet
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from sparknet.cli.options import SIZE
from sparknet.cli.progress import Lines
from sparknet.errors import DataError

if TYPE_CHECKING:
    from sparknet.db.imagenet import Run


@click.group()
def imagenet() -> None:
    """ImageNet's archives: make them ready to train on."""


@imagenet.command()
@click.argument("source", nargs=-1, required=True)
@click.option("--output", required=True, metavar="DIR|URL", help="Where the shards go: a folder, s3://...")
@click.option(
    "--labels",
    metavar="FILE",
    help="Lines of the validation set, or the devkit's .tar.gz.  [default: in SOURCE]",
)
@click.option("--size", type=SIZE, default="256", show_default=True, help="SIDE, or HEIGHTxWIDTH.")
@click.option("--quality", type=click.IntRange(1, 100), default=95, show_default=True, help="Of JPEG.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the shuffling.")
@click.option(
    "--shard-records", type=click.IntRange(1), default=1000, show_default=True, help="In each shard."
)
@click.option("--workers", type=click.IntRange(1), help="Processes on this machine.  [default: its cores]")
@click.option("--master", metavar="URL", help="Do it on this Spark cluster (spark://host:7077, local[4]).")
def prepare(
    source: Sequence[str],
    output: str,
    labels: str | None,
    workers: int | None,
    master: str | None,
    **options: Any,
) -> None:
    """Resize, shuffle and pack the pictures of ImageNet's archives, and compute their mean image.

    SOURCE is the folder (or s3://...) with ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, or these
    files themselves. They are read where they are. Run again after a kill, it goes on.
    """
    from sparknet.db.imagenet import Wanted, in_processes
    from sparknet.db.imagenet import prepare as make_ready

    archives, found = _archives(source)
    wanted = Wanted(archives=archives, labels=labels or found, output=output, **options)
    if archives.get("val") and wanted.labels is None:
        raise DataError(
            f"{archives['val'][0]} needs the labels of its pictures: --labels, val.txt or "
            "ILSVRC2012_devkit_t12.tar.gz"
        )
    cores = len(os.sched_getaffinity(0))
    run = _on_spark(master) if master else in_processes(workers or cores)
    made = make_ready(wanted, run, Lines("pictures"))
    for sentence in made.named:
        click.echo(f"left out: {sentence}", err=True)
    if made.resumed:
        click.echo(f"{made.resumed:,} shards were there from a run before this one", err=True)
    counts = " and ".join(
        f"{count:,} to {'train' if half == 'train' else 'test'} on" for half, count in made.records.items()
    )
    lost = f"; {made.left_out:,} pictures left out that cannot be decoded" if made.left_out else ""
    click.echo(f"{counts}, {made.classes:,} classes, in {output}{lost}")


def _archives(source: Sequence[str]) -> tuple[Any, str | None]:
    """The archives of each half, and the file with the labels of the second, by their names."""
    from sparknet.sources import files
    from sparknet.sources.imagenet import labels_among

    urls = []
    for one in source:
        urls += [file.url for file in files.listing(one)] if files.kind_of(one) == "folder" else [one]
    tars = [url for url in urls if url.lower().endswith(".tar")]
    val = [url for url in tars if "val" in url.rpartition("/")[2].lower()]
    train = [url for url in tars if url not in val]
    if not train:
        raise DataError(
            f"{', '.join(source)}: there is no training archive in it, such as ILSVRC2012_img_train.tar"
        )
    return {"train": tuple(train), **({"val": tuple(val)} if val else {})}, labels_among(urls)


def _on_spark(master: str) -> Run:
    from sparknet.spark.session import session
    from sparknet.spark.units import done_on

    spark = session("SparkNet: ImageNet", master)
    return lambda function, units: done_on(spark, function, units)
