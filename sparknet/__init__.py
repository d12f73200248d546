"""SparkNet: training of deep nets on Spark data by local SGD and averaging (arXiv 1511.06051)."""
