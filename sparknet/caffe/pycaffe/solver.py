"""pycaffe's solvers: ``get_solver(file)``, ``SGDSolver(file)`` and their kin.

    solver = caffe.get_solver("solver.prototxt")
    solver.step(100)
    print(solver.net.blobs["loss"].data, solver.test_nets[0].forward())

Source: ``python/caffe/_caffe.cpp`` of BVLC Caffe, whose interface this is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from sparknet.caffe.pycaffe import mode
from sparknet.caffe.pycaffe.net import Net, PycaffeError
from sparknet.caffe.schema import load_solver
from sparknet.caffe.schema.caffe_pb2 import SolverParameter
from sparknet.caffe.solver import Solver as CoreSolver


class Solver:
    """A solver of the type that its file says.

    It computes where ``set_mode_cpu`` or ``set_mode_gpu`` said when it was made. Raises PycaffeError (a
    RuntimeError) if the file is missing.
    """

    type: ClassVar[str] = ""  # of the classes below: what they are, whatever the file says

    def __init__(self, solver_file: str | Path) -> None:
        if not Path(solver_file).is_file():
            raise PycaffeError(f"Could not open file {solver_file}")
        param = load_solver(solver_file)
        if self.type:
            param.type = self.type
        self._core = CoreSolver.for_param(param, file=solver_file, device=mode.device())

    @cached_property
    def net(self) -> Net:
        """The net that is trained."""
        return Net.of(self._core.net)

    @cached_property
    def test_nets(self) -> list[Net]:
        """The nets it is tested with, which share its weights."""
        return [Net.of(net) for net in self._core.test_nets]

    @property
    def iter(self) -> int:
        """The number of updates made."""
        return self._core.iter

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return self._core.lr

    @property
    def param(self) -> SolverParameter:
        """What the solver's file says."""
        return self._core.param

    def step(self, iterations: int) -> None:
        """Make so many iterations, with the tests, displays and snapshots that fall due."""
        self._in_step_with_arrays(lambda: self._core.step(iterations))

    def solve(self, resume_file: str | Path | None = None) -> None:
        """Train to ``max_iter``, from a solver state if one is given."""
        self._in_step_with_arrays(lambda: self._core.solve(resume_file))

    def apply_update(self) -> None:
        """Apply the gradients in the net's diffs once."""
        self._in_step_with_arrays(self._core.apply_update)

    def snapshot(self) -> None:
        """Write the weights and the state."""
        self._in_step_with_arrays(self._core.snapshot)

    def restore(self, path: str | Path) -> None:
        """Go on from a solver state."""
        self._in_step_with_arrays(lambda: self._core.restore(path))

    def share_weights(self, net: Net) -> None:
        """Let another net use the weights of the trained one."""
        net.share_with(self.net)

    def add_callback(
        self, on_start: Callable[[], object], on_gradients_ready: Callable[[], object] | None = None
    ) -> None:
        """Call the one before each iteration's forward pass, the other before its update."""
        nothing: Callable[[], object] = lambda: None  # noqa: E731
        self._core.callbacks.append((on_start, on_gradients_ready or nothing))

    def _in_step_with_arrays(self, act: Callable[[], object]) -> None:
        """What was written to the arrays of the nets counts, and they show what came of it."""
        nets = [self.net, *self.test_nets]
        self._core.is_root = mode.solver_rank() == 0
        for net in nets:
            net._held.push()
        act()
        for net in nets:
            net._held.pull()


class SGDSolver(Solver):
    """Stochastic gradient descent with momentum."""

    type = "SGD"


class NesterovSolver(Solver):
    """Nesterov's accelerated gradient."""

    type = "Nesterov"


class AdaGradSolver(Solver):
    """AdaGrad."""

    type = "AdaGrad"


class RMSPropSolver(Solver):
    """RMSProp."""

    type = "RMSProp"


class AdaDeltaSolver(Solver):
    """AdaDelta."""

    type = "AdaDelta"


class AdamSolver(Solver):
    """Adam."""

    type = "Adam"


CLASSES = {kind.type: kind for kind in (SGDSolver, NesterovSolver, AdaGradSolver, RMSPropSolver)} | {
    "AdaDelta": AdaDeltaSolver,
    "Adam": AdamSolver,
}


def get_solver(solver_file: str | Path) -> Solver:
    """The solver of a file, of the class that its ``type`` names."""
    if not Path(solver_file).is_file():
        raise PycaffeError(f"Could not open file {solver_file}")
    return CLASSES.get(load_solver(solver_file).type, Solver)(solver_file)
