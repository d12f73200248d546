"""Frames between the driver and a worker: a channel, its authentication, and the handshake."""
