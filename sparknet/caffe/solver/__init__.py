"""Caffe's solvers: the loop, the update rules, the learning rates, tests and snapshots."""

from sparknet.caffe.solver.solver import Solver

__all__ = ["Solver"]
