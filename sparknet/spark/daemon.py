"""The process that Spark forks Python workers from, with torch imported before the fork.

Named by ``spark.python.daemon.module``. A worker forked from it starts with torch in memory, shared with
its siblings: a replacement for a lost worker is training again in 2 s instead of 10.
"""

import torch  # noqa: F401 - for the fork's sake; nothing may be computed here, threads do not survive a fork
from pyspark.daemon import manager

if __name__ == "__main__":
    manager()
