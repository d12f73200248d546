"""LSTM, LSTMUnit and RNN.

Time is the first axis: x is (T, N, ...), and cont (T, N) is 0 where a sequence begins. The state at the end
of a forward is where the next one begins, unless ``expose_hidden`` passes it through bottoms and tops
instead; no gradient goes through either, as in Caffe. Source: ``recurrent_layer.cpp``,
``lstm_layer.cpp``, ``lstm_unit_layer.cpp``, ``rnn_layer.cpp`` of
BVLC Caffe; Donahue et al., 2014 (arXiv 1411.4389).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparknet.caffe.layer import Arity, Shapes, TapeLayer, Tensors
from sparknet.caffe.precision import Arithmetic
from sparknet.weights import Shape

log = logging.getLogger("sparknet.caffe")


class Recurrent(TapeLayer):
    """What LSTM and RNN share: bottoms x, cont, [x_static], [initial states]; tops h, [final states]."""

    messages = ("recurrent_param",)
    bottom_arity = Arity(least=2, most=None)
    top_arity = Arity(least=1, most=None)
    index_bottoms = frozenset({1})
    states = 1
    """How many blobs of (1, N, num_output) are carried from step to step."""

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.recurrent_param
        self.hidden = p.num_output
        if self.hidden < 1:
            raise self.error("num_output must be positive")
        exposed = self.states if p.expose_hidden else 0
        self.has_static = len(bottoms) > 2 + exposed
        if len(bottoms) != 2 + self.has_static + exposed or self.tops_named not in (0, 1 + exposed):
            raise self.error(
                f"takes bottoms x, cont, [x_static] and {exposed} initial states, "
                f"and {1 + exposed} tops; it has {len(bottoms)} and {self.tops_named}"
            )
        self.carried: list[Tensor] = []
        self._declare_weights(bottoms)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        steps, rows = self._check_shapes(bottoms)
        exposed = self.states if self.param.recurrent_param.expose_hidden else 0
        return [(steps, rows, self.hidden), *[(1, rows, self.hidden)] * exposed]

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        x = bottoms[0].flatten(2)
        cont = bottoms[1].to(x.dtype)
        static = bottoms[2].flatten(1) if self.has_static else None
        exposed = self.param.recurrent_param.expose_hidden
        states = [state[0].detach() for state in bottoms[-self.states :]] if exposed else self._carried(x)
        outputs, states = self._unrolled(self._inputs(x, static, parameters), cont, states, parameters)
        self.carried = [] if exposed else [state.detach() for state in states]
        if self.param.recurrent_param.debug_info:
            log.info("%s: mean |h| per step %s", self.name, [float(h.abs().mean()) for h in outputs])
        return [torch.stack(outputs), *([state.detach().unsqueeze(0) for state in states] if exposed else [])]

    def reset(self) -> None:
        """Forget the state: the next forward begins from zeros."""
        self.carried = []

    # ---- what LSTM and RNN give

    def _declare_weights(self, bottoms: Shapes) -> None:
        raise NotImplementedError

    def _inputs(self, x: Tensor, static: Tensor | None, parameters: Tensors) -> Tensor:
        """The part of each step that does not depend on the state, for all steps at once."""
        inputs = x @ parameters[0].t() + parameters[1]
        return inputs if static is None else inputs + static @ parameters[2].t()

    def _unrolled(
        self, inputs: Tensor, cont: Tensor, states: list[Tensor], parameters: Tensors
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs per step, and the states after the last."""
        raise NotImplementedError

    def _carried(self, x: Tensor) -> list[Tensor]:
        shape = (x.shape[1], self.hidden)
        if not self.carried or self.carried[0].shape != shape:
            return [x.new_zeros(shape) for _ in range(self.states)]
        return self.carried

    def _check_shapes(self, bottoms: Shapes) -> tuple[int, int]:
        x, cont = tuple(bottoms[0]), tuple(bottoms[1])
        if len(x) < 3 or cont != x[:2]:
            raise self.error(f"x is (T, N, ...) and cont (T, N), and they have shapes {x} and {cont}")
        if math.prod(x[2:]) != self.declarations[0].shape[1]:
            raise self.error(
                f"the weights are for {self.declarations[0].shape[1]} inputs, and x has shape {x}"
            )
        if self.has_static and bottoms[2][0] != x[1]:
            raise self.error(f"x_static has one row per sequence ({x[1]}), not shape {tuple(bottoms[2])}")
        if self.param.recurrent_param.expose_hidden:
            states = [tuple(shape) for shape in bottoms[-self.states :]]
            if any(shape != (1, x[1], self.hidden) for shape in states):
                raise self.error(f"initial states have shape {(1, x[1], self.hidden)}, not {states}")
        return x[0], x[1]


class LSTM(Recurrent):
    """Gates i, f, o, g in this order; blobs W_xc (4H, I), b_c, [W_xc_static], W_hc (4H, H)."""

    type = "LSTM"
    arithmetic = Arithmetic.LOW
    states = 2

    def _declare_weights(self, bottoms: Shapes) -> None:
        p, gates = self.param.recurrent_param, 4 * self.hidden
        self.declare((gates, math.prod(bottoms[0][2:])), p.weight_filler)
        self.declare((gates,), p.bias_filler)
        if self.has_static:
            self.declare((gates, math.prod(bottoms[2][1:])), p.weight_filler)
        self.declare((gates, self.hidden), p.weight_filler)

    def _unrolled(
        self, inputs: Tensor, cont: Tensor, states: list[Tensor], parameters: Tensors
    ) -> tuple[list[Tensor], list[Tensor]]:
        recurrent = parameters[-1].t()
        h, c = states
        outputs = []
        for step in range(len(inputs)):
            alive = cont[step].unsqueeze(-1)
            c, h = lstm_unit(c, torch.addmm(inputs[step], h * alive, recurrent), alive)
            outputs.append(h)
        return outputs, [h, c]


class RNN(Recurrent):
    """h = tanh(W_hh h + W_xh x + b_h), o = tanh(W_ho h + b_o).

    Blobs W_xh, b_h, [W_xh_static], W_hh, W_ho, b_o.
    """

    type = "RNN"
    arithmetic = Arithmetic.LOW

    def _declare_weights(self, bottoms: Shapes) -> None:
        p, hidden = self.param.recurrent_param, self.hidden
        self.declare((hidden, math.prod(bottoms[0][2:])), p.weight_filler)
        self.declare((hidden,), p.bias_filler)
        if self.has_static:
            self.declare((hidden, math.prod(bottoms[2][1:])), p.weight_filler)
        self.declare((hidden, hidden), p.weight_filler)
        self.declare((hidden, hidden), p.weight_filler)
        self.declare((hidden,), p.bias_filler)

    def _unrolled(
        self, inputs: Tensor, cont: Tensor, states: list[Tensor], parameters: Tensors
    ) -> tuple[list[Tensor], list[Tensor]]:
        recurrent, output, bias = parameters[-3].t(), parameters[-2].t(), parameters[-1]
        (h,) = states
        outputs = []
        for step in range(len(inputs)):
            h = torch.addmm(inputs[step], h * cont[step].unsqueeze(-1), recurrent).tanh()
            outputs.append(torch.addmm(bias, h, output).tanh())
        return outputs, [h]


class LSTMUnit(TapeLayer):
    """One step: c (1, N, H), gate inputs (1, N, 4H) and cont (1, N) -> c, h (1, N, H)."""

    type = "LSTMUnit"
    bottom_arity = Arity(least=3, most=3)
    top_arity = Arity(least=2, most=2)
    index_bottoms = frozenset({2})

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        c, gates, cont = (tuple(shape) for shape in bottoms)
        if len(c) != 3 or gates != (c[0], c[1], 4 * c[2]) or cont != c[:2] or c[0] != 1:
            raise self.error(
                f"needs c (1, N, H), gates (1, N, 4H) and cont (1, N), not {c}, {gates} and {cont}"
            )
        return [c, c]

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        c, gates, cont = bottoms
        return list(lstm_unit(c, gates, cont.reshape(1, -1, 1)))


def lstm_unit(c: Tensor, gates: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """The next c and h, (..., H), of gate inputs (..., 4H); ``alive`` 0 forgets the old c."""
    i, f, o, g = gates.chunk(4, -1)
    c = alive * f.sigmoid() * c + i.sigmoid() * g.tanh()
    return c, o.sigmoid() * c.tanh()


def reset_states(layers: Sequence[object]) -> None:
    """Forget the state of every recurrent layer among ``layers``."""
    for layer in layers:
        if isinstance(layer, Recurrent):
            layer.reset()
