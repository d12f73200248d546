"""Train CaffeNet on ImageNet by SparkNet's algorithm (section 4 of arXiv 1511.06051: tau 50, batch 256).

    spark-submit --master spark://host:7077 --py-files trainer.zip \\
        apps/ImageNetApp.py --data s3://bucket/imagenet --output DIR

--data is what ``sparknet imagenet prepare`` has made, anywhere, or a folder of archives with --labels
FILE: it holds train/ and val/, or just pictures, a tenth of which, by name, is the test set then. Every
worker reads its own part, so a folder must be the same on all machines (a shared or copied volume).
"""

from __future__ import annotations

from pathlib import Path

import click

from apps import datasets
from apps.datasets import Pictures
from apps.options import Options, launch, training_options
from apps.photographs import is_source, mean_of, prepared_mean, training_data
from apps.training import run
from sparknet.data import Transform
from sparknet.data.imagenet import SIDE, Labels
from sparknet.errors import UsageError

CROP = 227
FILE = click.Path(path_type=Path)


@training_options(tau=50, rounds=1000, batch_size=256, solver="caffenet_solver.prototxt")
@click.option("--labels", type=FILE, help='Lines of "synset index [name]", for --data with archives.')
@click.option(
    "--mean",
    type=FILE,
    help="A mean image, binaryproto.  [default: that of --data, else ImageNet's mean colour]",
)
@click.option("--test-images", type=click.IntRange(min=1), default=2000, help="At most so many in a test.")
def main(options: Options, labels: Path, mean: Path | None, test_images: int) -> None:
    """Train a net on photographs, as ImageNet's, with a Spark cluster, or on the cores of this machine.

    Pictures are made 256 x 256; the net sees a crop of 227: a random one to train, the middle one to test.
    """
    prepared = options.data if is_source(options.data) else None
    url = options.source or prepared
    mean = mean or prepared_mean(prepared)
    transform = Transform(mean=mean_of(mean), crop=CROP)
    if url:
        pictures = Pictures(size=(SIDE, SIDE), order="bgr")
        run(
            datasets.training_data(
                options, url, pictures, lambda _: transform, most_tested=test_images, test_batch_size=50
            ),
            options,
        )
        return
    if labels is None:
        raise UsageError(
            f"--labels: {options.data} is not what sparknet imagenet prepare makes, which has its own"
        )
    named = Labels.read(labels)
    run(
        training_data(Path(options.data), named, transform, test_images=test_images, seed=options.seed),
        options,
    )


if __name__ == "__main__":
    launch(main)
