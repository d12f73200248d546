"""Published weights, own classes: only a new last layer is trained, and then the whole net a little.

python docs/examples/fine_tuning.py

The published net is trained here, so that nothing has to be downloaded; with one of torchvision's, it is
``weights="resnet18.pth"`` and a last layer of another size or name.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sparknet.data import Examples, Transform, synthetic
from sparknet.spark import frame_of, session
from sparknet.trainer import Lines, Trainer


def net(classes: int) -> nn.Module:
    features = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 5, stride=2), nn.ReLU(), nn.Flatten()
    )
    return nn.ModuleDict({"features": features, f"head{classes}": nn.Linear(800, classes)})


class Net(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.parts, self.head = net(classes), f"head{classes}"

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:  # float32 (n, 3, 32, 32)
        return self.parts[self.head](self.parts["features"](pictures))


if __name__ == "__main__":
    spark = session("fine tuning")
    drawn = synthetic.draw(train=2000, test=400)
    published = Path(tempfile.mkdtemp()) / "published.pt"
    settings = {"transform": Transform(scale=1 / 256), "lr": 1e-3, "callbacks": [Lines()]}
    first = Trainer(model=lambda: Net(10), epochs=3, **settings).fit(frame_of(spark, drawn.train))
    first.save_weights(published)

    few = Examples(drawn.test.images, (drawn.test.labels % 2).astype(np.int64))  # two classes of our own
    frame = frame_of(spark, few)
    head = Trainer(
        model=lambda: Net(2), weights=published, freeze=["parts.features.*"], epochs=5, **settings
    ).fit(frame)
    whole = Trainer(model=lambda: Net(2), weights=head.state_dict(), epochs=2, **settings).fit(frame)
    found = whole.predict(frame)
    print(f"right: {found.where('label = prediction').count() / found.count():.0%}")
    spark.stop()
