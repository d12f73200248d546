"""Training on Spark: the only part of the trainer that knows pyspark."""
