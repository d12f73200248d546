"""Characters and a recurrent net: which language a word is of.

python docs/examples/text_rnn.py
"""

import pandas as pd
import torch
from torch import nn

from sparknet.spark import session
from sparknet.trainer import Lines, Trainer

LENGTH, LETTERS = 10, " abcdefghijklmnopqrstuvwxyz"
WORDS = {
    "english": "the this with which there their would about could other thought through should where night",
    "german": "nicht eine auch wird sich nach durch schon zwischen werden haben jetzt immer wieder mehr",
    "italian": "della sono questo anche quando tutti molto ancora sempre dopo prima cosa niente bello oggi",
}


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS), 16)
        self.recurrent = nn.GRU(16, 32, batch_first=True)
        self.scores = nn.Linear(32, 3)

    def forward(self, letters: torch.Tensor) -> torch.Tensor:  # int64 (n, LENGTH)
        outputs, _ = self.recurrent(self.letters(letters))
        return self.scores(outputs[:, -1])


def table() -> pd.DataFrame:
    rows = [(word, language) for language, words in WORDS.items() for word in words.split()]
    made = pd.DataFrame(rows * 20, columns=["word", "language"])
    made["letters"] = [[LETTERS.index(c) for c in word.rjust(LENGTH)[:LENGTH]] for word in made.word]
    return made


if __name__ == "__main__":
    spark = session("text")
    frame = spark.createDataFrame(table())
    trainer = Trainer(
        model=Words,
        features="letters",
        label="language",
        lr=0.01,
        clip_norm=1.0,
        epochs=15,
        callbacks=[Lines()],
    )
    trained = trainer.fit(frame, validation=0.2)
    found = trained.predict(frame)
    found.select("word", "language", "prediction").show(5)
    print(f"right: {found.where('language = prediction').count() / found.count():.0%}")
    spark.stop()
