"""What is made of finished rounds: the log, the report, TensorBoard's curves, warnings and the cost model."""
