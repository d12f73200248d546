"""Training on a Spark that somebody else runs: the trainer travels with the job.

python docs/examples/own_master.py spark://host:7077

The machines need the packages of requirements.lock (torch among them) and this machine's version of Python.
``sparknet`` itself goes along: ``ship=True`` zips it and hands it to Spark, for the tasks to import.
"""

import sys

import numpy as np
import pandas as pd
from torch import nn

from sparknet.spark import session
from sparknet.trainer import Lines, Trainer

if __name__ == "__main__":
    spark = session("elsewhere", master=sys.argv[1], ship=True)
    x = np.random.default_rng(0).normal(size=(1000, 2))
    frame = spark.createDataFrame(pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": x[:, 0] - x[:, 1]}))
    trainer = Trainer(
        model=lambda: nn.Linear(2, 1),
        loss="mse",
        lr=0.05,
        features=["a", "b"],
        label="y",
        epochs=5,
        callbacks=[Lines()],
    )
    print(f"loss {trainer.fit(frame).history[-1].loss:.4f}")
    spark.stop()
