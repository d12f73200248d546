"""Train CaffeNet on ImageNet by SparkNet's algorithm (section 4 of arXiv 1511.06051: tau 50, batch 256).

    spark-submit --master spark://host:7077 --py-files trainer.zip \\
        apps/ImageNetApp.py --data DIR --labels FILE --output DIR

DIR holds train/ and val/, or just pictures: a tenth of them, by name, is the test set then. Every worker
reads its own part of the archives, so DIR must be the same on all machines (a shared or copied volume).
"""

from __future__ import annotations

from pathlib import Path

import click

from apps.options import Options, launch, training_options
from apps.photographs import mean_of, training_data
from apps.training import run
from sparknet.data import Transform
from sparknet.data.imagenet import Labels

CROP = 227
FILE = click.Path(path_type=Path)


@training_options(tau=50, rounds=1000, batch_size=256, solver="caffenet_solver.prototxt")
@click.option("--labels", type=FILE, required=True, help='Lines of "synset index [name]".')
@click.option("--mean", type=FILE, help="A mean image, binaryproto.  [default: ImageNet's mean colour]")
@click.option("--test-images", type=click.IntRange(min=1), default=2000, help="At most so many in a test.")
def main(options: Options, labels: Path, mean: Path | None, test_images: int) -> None:
    """Train a net on photographs, as ImageNet's, with a Spark cluster, or on the cores of this machine.

    Pictures are made 256 x 256; the net sees a crop of 227: a random one to train, the middle one to test.
    """
    transform = Transform(mean=mean_of(mean), crop=CROP)
    named = Labels.read(labels)
    run(
        training_data(Path(options.data), named, transform, test_images=test_images, seed=options.seed),
        options,
    )


if __name__ == "__main__":
    launch(main)
