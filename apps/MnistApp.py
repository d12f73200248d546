"""Train LeNet on MNIST by SparkNet's algorithm.

python apps/MnistApp.py --data synthetic --rounds 40            on the cores of this machine
spark-submit --master spark://host:7077 --py-files trainer.zip apps/MnistApp.py --output DIR
"""

from __future__ import annotations

from apps.datasets import Pictures, training_data
from apps.options import Options, launch, training_options
from apps.progress import Downloading
from apps.training import TrainingData, run
from sparknet.data import Transform
from sparknet.data.locate import locate

# Caffe's examples/mnist/lenet_train_test.prototxt: scale 0.00390625
SCALE = 1 / 256


@training_options(tau=10, rounds=100, batch_size=64, solver="lenet_solver.prototxt")
def main(options: Options) -> None:
    """Train a net on MNIST with a Spark cluster, or on the cores of this machine.

    Pixels are fed as 0 to 1, in steps of 1/256. Pictures of --images and --dataset are made grey, 28 x 28.
    """
    if options.source:
        pictures = Pictures(size=(28, 28), channels=1)
        run(training_data(options, options.source, pictures, lambda _: Transform(scale=SCALE)), options)
        return
    located = locate("mnist", options.data, seed=options.seed, progress=Downloading())
    run(TrainingData.of(located, Transform(scale=SCALE)), options)


if __name__ == "__main__":
    launch(main)
