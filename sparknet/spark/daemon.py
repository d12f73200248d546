"""The process that Spark forks Python workers from, with all that they need imported before the fork.

Named by ``spark.python.daemon.module``. A worker forked from it starts with torch and the trainer in memory,
shared with its siblings: a replacement for a lost worker is training again in a second or two instead of 10.
"""

from contextlib import suppress

from pyspark.daemon import manager

# For the fork's sake. Nothing may be computed here: threads do not survive a fork. What is missing is said by
# the task that needs it, not by a daemon that does not start.
with suppress(ImportError):
    import torch  # noqa: F401

    import sparknet.caffe_replica
    import sparknet.spark.jobs  # noqa: F401

if __name__ == "__main__":
    manager()
