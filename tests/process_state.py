"""What a test changes in its process is put back when it ends: none may depend on those that ran before."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

# The root logger, and those above all others of ours; commands set them up for their process.
LOGGERS = ("", "caffe", "infra", "sparknet")


@contextmanager
def put_back() -> Iterator[None]:
    """Environment, folder and loggers are afterwards what they were before."""
    environment, folder = dict(os.environ), os.open(".", os.O_RDONLY)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    try:
        yield
    finally:
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        os.fchdir(folder)
        os.close(folder)
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)
