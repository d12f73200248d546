"""The Spark of two slots that the tests of ``Trainer`` have."""

from tests.sparknet.trainer.conftest import spark

__all__ = ["spark"]
