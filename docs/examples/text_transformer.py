"""Characters and a transformer encoder: whether brackets are balanced.

python docs/examples/text_transformer.py
"""

import numpy as np
import pandas as pd
import torch
from torch import nn

from sparknet.spark import session
from sparknet.trainer import Lines, Trainer

LENGTH = 12


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(2, 32)
        self.places = nn.Parameter(torch.randn(LENGTH, 32) * 0.1)
        layer = nn.TransformerEncoderLayer(32, nhead=4, dim_feedforward=64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.scores = nn.Linear(32, 2)

    def forward(self, symbols: torch.Tensor) -> torch.Tensor:  # int64 (n, LENGTH)
        return self.scores(self.encoder(self.symbols(symbols) + self.places).mean(1))


def table(rows: int = 3000) -> pd.DataFrame:
    steps = np.random.default_rng(0).integers(0, 2, size=(rows, LENGTH))
    heights = np.cumsum(1 - 2 * steps, axis=1)
    balanced = heights.min(axis=1) >= -1  # the text never closes two brackets more than it has opened
    return pd.DataFrame({"symbols": steps.tolist(), "label": balanced.astype(int)})


if __name__ == "__main__":
    spark = session("brackets")
    trainer = Trainer(
        model=Encoder,
        features="symbols",
        optimizer="adamw",
        lr=3e-3,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400),
        epochs=8,
        callbacks=[Lines()],
    )
    trained = trainer.fit(spark.createDataFrame(table()), validation=0.2)
    print(f"accuracy {trained.history[-1].accuracy:.2f}")
    spark.stop()
