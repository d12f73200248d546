"""Predictions and features of a net over a data set of any size, to Parquet.

python docs/examples/predict_to_parquet.py
"""

import tempfile

from torch import nn

from sparknet.data import Transform, synthetic
from sparknet.spark import frame_of, session
from sparknet.trainer import Trainer, load, save


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 10))


if __name__ == "__main__":
    spark = session("predict")
    folder = tempfile.mkdtemp()
    drawn = synthetic.draw(train=1000, test=500)
    trainer = Trainer(model=net, transform=Transform(scale=1 / 256), epochs=2)
    trained = trainer.fit(frame_of(spark, drawn.train))
    save(trained, f"{folder}/net")

    pictures = frame_of(spark, drawn.test)  # spark.read.parquet(...), which may be larger than any memory
    found = load(f"{folder}/net").predict(pictures, outputs={"features": "2"})
    found.select("label", "prediction", "features").write.parquet(f"{folder}/predictions")
    print(f"{spark.read.parquet(f'{folder}/predictions').count():,} rows")
    spark.stop()
