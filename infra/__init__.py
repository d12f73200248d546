"""Machines: spot GPU clusters on EC2, or on the embedded cloud of this machine, as code."""
