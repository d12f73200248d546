"""The simulated S3 of the tests of sources."""

from tests.sparknet.sources.s3 import s3

__all__ = ["s3"]
