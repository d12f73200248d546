"""The solver: iterations of forward, backward and update, tests, displays and snapshots.

    solver = Solver.for_file("models/cifar10_quick_solver.prototxt")
    solver.step(100)           # with the net's own data layers
    solver.step(10, feed=next_batch)   # or with batches: {"data": (N, C, H, W), "label": (N,)}

What Caffe writes to its log goes to the logger ``caffe`` in Caffe's words, so that tools that read those logs
read these. Source: ``src/caffe/solver.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from sparknet.caffe.files import solver_state
from sparknet.caffe.files import weights as weight_files
from sparknet.caffe.files.solver_state import SolverState
from sparknet.caffe.net import Net
from sparknet.caffe.precision import LossScale
from sparknet.caffe.schema import load_net, load_solver
from sparknet.caffe.schema.caffe_pb2 import NetParameter, SolverParameter
from sparknet.caffe.solver import nets, snapshots
from sparknet.caffe.solver.display import Display
from sparknet.caffe.solver.lr_policies import rate
from sparknet.caffe.solver.paths import check_writable, found, snapshot_path
from sparknet.caffe.solver.rules import rule_named
from sparknet.caffe.solver.scores import Feed, Score, mean_outputs
from sparknet.caffe.solver.signals import Action
from sparknet.caffe.solver.update import Updater, spans_of
from sparknet.errors import ModelError

log = logging.getLogger("caffe")


class Solver:
    """Trains ``net`` as ``param`` says, testing with ``test_nets``, which share its weights.

    ``requested_action`` is asked between iterations; ``callbacks`` are pairs of functions called before the
    forward pass and before the update. If ``net`` computes in fp16, ``loss_scale`` keeps its gradients from
    vanishing, and an update with one that is not finite is left out. Raises ModelError for a solver that
    cannot be.
    """

    def __init__(
        self, param: SolverParameter, net: Net, test_nets: Sequence[Net] = (), *, file: str | Path = ""
    ) -> None:
        self.param, self.net, self.test_nets = param, net, list(test_nets)
        self.file = Path(file)
        self.iter = 0
        self.current_step = 0
        self.rate_factor = 1.0  # of the learning rate; for several solvers that average their nets
        self.stopped = False
        self.is_root = True  # of several solvers that train together only the root tests and snapshots
        self.requested_action: Callable[[], Action] = lambda: Action.NONE
        self.callbacks: list[tuple[Callable[[], object], Callable[[], object]]] = []
        self._losses: deque[torch.Tensor] = deque(maxlen=_at_least_one(param.average_loss, "average_loss"))
        _at_least_one(param.iter_size, "iter_size")
        self._updater = self._new_updater()
        self.loss_scale = LossScale(net.device) if net.dtype == torch.float16 else None
        self._display = Display(param.display)
        rate(param, 0)  # a policy that cannot be is refused now, not after the first forward pass
        if param.snapshot:
            check_writable(snapshot_path(param.snapshot_prefix, self.file, 0, ""))
        for test_net in self.test_nets:
            test_net.share_with(net)

    @classmethod
    def for_param(
        cls,
        param: SolverParameter,
        *,
        file: str | Path = "",
        device: torch.device | str | None = None,
        precision: str = "float32",
    ) -> Solver:
        """A solver with the nets and the weights that ``param`` names; ``file`` is where it was read.

        Paths are relative to the working folder, as in Caffe, or else to the folder of ``file``. The net is
        trained in ``precision`` and tested in float32.
        """
        folder = Path(file).parent
        if param.random_seed >= 0:
            torch.manual_seed(param.random_seed)

        def read(path: str) -> NetParameter:
            return load_net(found(path, folder))

        def source(path: str) -> str:
            return str(found(path, folder) if path else file)

        device = device or default_device(param)
        with _naming(file):
            trained, tested = nets.train_net(param, read), nets.test_nets(param, read)
        net = Net(
            trained,
            trained.state.phase,
            device=device,
            source=source(nets.train_file(param)),
            precision=precision,
        )
        tests = [
            Net(wanted, wanted.state.phase, device=device, source=source(path))
            for wanted, path in zip(tested, nets.test_files(param), strict=True)
        ]
        with _naming(file):
            solver = cls(param, net, tests, file=file)
        for name in (name.strip() for names in param.weights for name in names.split(",")):
            weight_files.load(net, found(name, folder))
        return solver

    @classmethod
    def for_file(
        cls, path: str | Path, *, device: torch.device | str | None = None, precision: str = "float32"
    ) -> Solver:
        """The solver of a prototxt file. Raises SchemaError or ModelError for one that cannot be used."""
        return cls.for_param(load_solver(path), file=path, device=device, precision=precision)

    # -- state

    @property
    def lr(self) -> float:
        """The learning rate of the next update, a float32 number times ``rate_factor``."""
        return self.rate_factor * rate(self.param, self.iter, self.current_step).lr

    @property
    def history(self) -> list[torch.Tensor]:
        """The vectors ``(P,)`` of the update rule: one, or two for Adam and AdaDelta."""
        return self._updater.history

    @property
    def smoothed_loss(self) -> float:
        """The mean loss of the last ``average_loss`` iterations of this call of ``step``; 0 before any."""
        return float(torch.stack(tuple(self._losses)).mean()) if self._losses else 0.0

    def save_state(self, learned_net: str = "") -> SolverState:
        """All that is needed besides the weights to go on exactly, as a value of CPU tensors."""
        history = solver_state.shaped(self.history, self._shapes())
        return SolverState(
            iter=self.iter, current_step=self.current_step, learned_net=learned_net, history=history
        )

    def load_state(self, state: SolverState) -> None:
        """Go on from ``state``; the weights are left alone.

        Raises ModelError if it belongs to another net.
        """
        vectors = solver_state.flattened(state.history, self._shapes())
        if len(vectors) != len(self.history):
            raise ModelError(
                f"the solver state holds {len(vectors)} history blobs for each blob of the net, "
                f"{self._updater.rule.name} needs {len(self.history)}: it is of another type of solver"
            )
        for mine, read in zip(self.history, vectors, strict=True):
            mine.copy_(read)
        self.iter, self.current_step = state.iter, state.current_step

    # -- training

    def step(self, iterations: int, feed: Feed | None = None) -> torch.Tensor:
        """Make so many iterations and return their mean loss, a tensor of no axes on the net's device.

        ``feed`` is called before every forward pass (``iter_size`` times an iteration) for the input blobs by
        name. Ends early, with ``stopped`` set, when the requested action is to stop.
        """
        self._losses.clear()
        self.stopped = False
        total = torch.zeros((), device=self.net.weights.device)
        first, last = self.iter, self.iter + iterations
        while self.iter < last and self._test_if_due():
            loss = self.sum_gradients(feed)
            total += loss
            self._losses.append(loss)
            if _divides(self.param.display, self.iter) and log.isEnabledFor(logging.INFO):
                self._display.log(self.iter, self.smoothed_loss, self.net)
            self.apply_update()
            if self._act_on_request():
                break
        return total / max(1, self.iter - first)

    def solve(self, resume_file: str | Path | None = None, feed: Feed | None = None) -> None:
        """Train to ``max_iter``, then snapshot, display and test as the solver says."""
        log.info("Solving %s", self.net.name)
        log.info("Learning Rate Policy: %s", self.param.lr_policy)
        if resume_file:
            log.info("Restoring previous solver status from %s", resume_file)
            self.restore(resume_file)
        self.step(self.param.max_iter - self.iter, feed)
        if self.param.snapshot_after_train and not _divides(self.param.snapshot, self.iter):
            self.snapshot()
        if self.stopped:
            log.info("Optimization stopped early.")
            return
        if _divides(self.param.display, self.iter):
            self.net.forward(feed() if feed else None)
            self._losses.append(self.net.loss)
            log.info("Iteration %d, loss = %g", self.iter, self.smoothed_loss)
        if _divides(self.param.test_interval, self.iter):
            self.test_all()
        log.info("Optimization Done.")

    def sum_gradients(
        self, feed: Feed | None = None, on_final: Callable[[int], object] | None = None
    ) -> torch.Tensor:
        """One iteration's gradient, summed into the diffs; gives the mean loss of its forward passes.

        ``on_final`` is as in ``Net.backward``, in the last of ``iter_size`` passes. ``apply_update`` is the
        rest of an iteration.
        """
        self.net.clear_diffs()
        if self.loss_scale:
            self.net.scale_losses(self.loss_scale.value)
        if self.param.debug_info:
            self.net.debug_info = _divides(self.param.display, self.iter)
        for on_start, _ in self.callbacks:
            on_start()
        loss = torch.zeros((), device=self.net.weights.device)
        for number in range(self.param.iter_size):
            self.net.forward(feed() if feed else None)
            self.net.backward(on_final if number == self.param.iter_size - 1 else None)
            loss += self.net.loss.detach()
        for _, on_gradients_ready in self.callbacks:
            on_gradients_ready()
        return loss / self.param.iter_size

    def apply_update(self, *, unscaled: bool = False) -> None:
        """Apply the gradient in the net's diffs once, and count it in ``iter``.

        ``unscaled`` says that it has been divided by the loss scale already.
        """
        now = rate(self.param, self.iter, self.current_step)
        if now.current_step != self.current_step and self.param.lr_policy == "multistep":
            log.info("MultiStep Status: Iteration %d, step = %d", self.iter, now.current_step)
        self.current_step = now.current_step
        lr = self.rate_factor * now.lr
        if _divides(self.param.display, self.iter):
            log.info("Iteration %d, lr = %g", self.iter, lr)
        if self.loss_scale and not self._is_finite(unscaled):
            log.info("Iteration %d, no update: a gradient is not finite in fp16", self.iter)
        else:
            self._update_weights(lr)
        self.iter += 1

    def _is_finite(self, unscaled: bool) -> bool:
        assert self.loss_scale is not None
        return (self.loss_scale.check if unscaled else self.loss_scale.unscale)(self.net.diffs)

    def _update_weights(self, lr: float) -> None:
        if self._updater.weights is not self.net.weights or self._updater.diffs is not self.net.diffs:
            self._updater.rebind(self.net.weights, self.net.diffs)
        self._updater.apply(lr, self.iter)

    # -- testing

    def test_all(self) -> list[list[Score]]:
        """The scores of every test net, in order; fewer if a stop was requested."""
        scores = []
        for index in range(len(self.test_nets)):
            if not self.stopped:
                scores.append(self.test(index))
        return scores

    def test(self, index: int = 0, feed: Feed | None = None) -> list[Score]:
        """The means over ``test_iter[index]`` batches of each element of each output.

        Empty if interrupted.
        """
        log.info("Iteration %d, Testing net (#%d)", self.iter, index)
        scores, loss = mean_outputs(
            self.test_nets[index], self.param.test_iter[index], feed, is_stopped=self._stop_requested_in_test
        )
        if self.stopped:
            log.info("Test interrupted.")
            return []
        if self.param.test_compute_loss:
            log.info("Test loss: %g", loss)
        for number, score in enumerate(scores):
            log.info("    Test net output #%d: %s", number, score)
        return scores

    # -- snapshots

    def snapshot(self) -> Path:
        """Write the weights and the state as ``snapshot_format`` says; returns the path of the state."""
        return snapshots.write(self.net, self.save_state(), self.param, self.file)

    def restore(self, path: str | Path) -> None:
        """Go on from a snapshot: the state in ``path`` and the weights it names.

        Those are looked for where the state says, or else beside it. Raises ModelError if either does not
        fit.
        """
        state, weights = snapshots.read(path)
        if weights:
            weight_files.load(self.net, weights)
        self.load_state(state)

    # -- the parts of an iteration

    def _test_if_due(self) -> bool:
        """Test where ``test_interval`` says so; False if that ended in a request to stop."""
        due = self.is_root and _divides(self.param.test_interval, self.iter)
        if due and (self.iter > 0 or self.param.test_initialization):
            self.test_all()
        return not self.stopped

    def _act_on_request(self) -> bool:
        """Snapshot if it is time or requested; True if the request is to stop."""
        action = self.requested_action()
        due = self.is_root and _divides(self.param.snapshot, self.iter)
        if due or action is Action.SNAPSHOT:
            self.snapshot()
        self.stopped = self.stopped or action is Action.STOP
        return self.stopped

    def _stop_requested_in_test(self) -> bool:
        while (action := self.requested_action()) is not Action.NONE:
            if action is Action.SNAPSHOT:
                self.snapshot()
            self.stopped = self.stopped or action is Action.STOP
        return self.stopped

    def _new_updater(self) -> Updater:
        param, net = self.param, self.net
        return Updater(
            rule_named(
                param.type,
                momentum=param.momentum,
                momentum2=param.momentum2,
                rms_decay=param.rms_decay,
            ),
            param,
            weights=net.weights,
            diffs=net.diffs,
            spans=spans_of(net.learnable),
        )

    def _shapes(self) -> list[tuple[int, ...]]:
        return [tuple(blob.shape) for blob in self.net.learnable]


@contextmanager
def _naming(file: str | Path) -> Iterator[None]:
    """Errors begin with the solver's file, unless they name a place already."""
    try:
        yield
    except ModelError as error:
        named = type(error) is ModelError and str(file) and not str(error).startswith("cannot read")
        raise (ModelError(f"{file}: {error}") if named else error) from None


def default_device(param: SolverParameter) -> torch.device:
    """The GPU ``device_id`` if ``solver_mode`` is GPU, which is the default, and there is one."""
    if param.solver_mode == SolverParameter.GPU and torch.cuda.is_available():
        return torch.device("cuda", param.device_id)
    return torch.device("cpu")


def _divides(interval: int, iteration: int) -> bool:
    return interval > 0 and iteration % interval == 0


def _at_least_one(value: int, name: str) -> int:
    if value < 1:
        raise ModelError(f"{name} must be at least 1, not {value}")
    return value
