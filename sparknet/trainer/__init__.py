"""The front of the trainer: ``Trainer(...).fit(frame)``, and what it gives."""

from sparknet.trainer.callbacks import Callback, EarlyStopping, Lines
from sparknet.trainer.saved import load, save
from sparknet.trainer.trained import Trained
from sparknet.trainer.trainer import Cluster, Trainer

__all__ = ["Callback", "Cluster", "EarlyStopping", "Lines", "Trained", "Trainer", "load", "save"]
