"""The engine: coordinator, workers' service and averaging over sockets of their own, without Spark."""
