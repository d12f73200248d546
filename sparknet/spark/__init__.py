"""Training on Spark: the only part of the trainer that knows pyspark."""

from sparknet.distributed.timeouts import Timeouts
from sparknet.spark.bundle import bundle
from sparknet.spark.frames import frame_of, from_examples
from sparknet.spark.session import session
from sparknet.spark.workers import SparkWorkers

Deadlines = Timeouts
"""The name that ``SparkWorkers(deadlines=...)`` goes with."""

__all__ = ["Deadlines", "SparkWorkers", "bundle", "frame_of", "from_examples", "session"]
