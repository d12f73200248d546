"""A table and a perceptron: the price of a house from twelve numbers.

python docs/examples/table_regression.py
"""

import numpy as np
import pandas as pd
from torch import nn

from sparknet.spark import session
from sparknet.trainer import EarlyStopping, Lines, Trainer

COLUMNS = [f"x{k}" for k in range(12)]


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))


def table(rows: int = 4000) -> pd.DataFrame:
    x = np.random.default_rng(0).normal(size=(rows, 12))
    made = pd.DataFrame(x, columns=COLUMNS)
    made["price"] = 3 * x[:, 0] - 2 * x[:, 1] * x[:, 2] + np.sin(x[:, 3])
    return made


if __name__ == "__main__":
    spark = session("table")
    train, test = spark.createDataFrame(table()).randomSplit([0.8, 0.2], seed=1)
    trainer = Trainer(
        model=perceptron,
        loss="mse",
        metrics=["mae"],
        optimizer="adam",
        lr=3e-3,
        features=COLUMNS,
        label="price",
        epochs=30,
        early_stopping=EarlyStopping(metric="loss", patience=10),
        callbacks=[Lines()],
    )
    trained = trainer.fit(train, validation=test)
    found = trained.predict(test).select("price", "prediction").toPandas()
    r2 = 1 - ((found.price - found.prediction) ** 2).sum() / ((found.price - found.price.mean()) ** 2).sum()
    print(f"R2 {r2:.3f}")
    spark.stop()
