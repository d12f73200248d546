"""Train cifar10_quick on CIFAR-10 by SparkNet's algorithm (section 4 of arXiv 1511.06051: tau 10, batch 100).

python apps/CifarApp.py --data synthetic --rounds 40            on the cores of this machine
spark-submit --master spark://host:7077 --py-files trainer.zip apps/CifarApp.py --output DIR
"""

from __future__ import annotations

from apps.datasets import Pictures, mean_image, training_data
from apps.options import Options, launch, training_options
from apps.progress import Downloading
from apps.training import TrainingData, run
from sparknet.data import Transform
from sparknet.data.locate import locate


@training_options(tau=10, rounds=100, batch_size=100, solver="cifar10_quick_solver.prototxt")
def main(options: Options) -> None:
    """Train a net on CIFAR-10 with a Spark cluster, or on the cores of this machine.

    Pictures are fed less the mean image of the training set. Those of --images and --dataset are made 32 x
    32.
    """
    if options.source:
        pictures = Pictures(size=(32, 32))
        run(
            training_data(options, options.source, pictures, lambda s: Transform(mean=mean_image(s))), options
        )
        return
    located = locate("cifar10", options.data, seed=options.seed, progress=Downloading())
    mean = located.dataset.train.mean_image()
    run(TrainingData.of(located, Transform(mean=mean)), options)


if __name__ == "__main__":
    launch(main)
