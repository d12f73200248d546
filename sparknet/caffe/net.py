"""A net: layers in order, the blobs between them, and all they have learned in one flat vector.

    net = Net.for_file("cifar10_quick_train_test.prototxt", TRAIN)
    net.forward({"data": images, "label": labels})
    net.clear_diffs()
    net.backward()
    net.weights.sub_(0.01 * net.diffs)

Each layer is run by itself (see ``layer``), so forward and backward can start and stop anywhere, and
any blob can be looked at or changed in between.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from sparknet.caffe.backward_plan import plan
from sparknet.caffe.blob import Blob
from sparknet.caffe.files import weights as weight_files
from sparknet.caffe.layer import Layer
from sparknet.caffe.layers import TYPES
from sparknet.caffe.node import Node, check_counts, make_layer, top_shapes
from sparknet.caffe.parameters import allocate
from sparknet.caffe.precision import dtype_named
from sparknet.caffe.schema import in_state, layer_places, load_net, type_refusal, with_splits
from sparknet.caffe.schema.caffe_pb2 import LayerParameter, NetParameter, NetState
from sparknet.caffe.size_check import excess
from sparknet.errors import ModelError
from sparknet.weights import Layout, Shape

_VIEWS = frozenset({"Split", "Flatten", "Reshape"})
"""Types whose tops are the memory of their bottoms."""

ANONYMOUS = "(automatic)"
"""Name of the top of a loss layer that names none."""


class Net:
    """The layers that ``param`` has in ``phase`` at ``level`` with ``stages``, on one device.

    ``blobs`` has the tensors between layers by name, ``params`` the learned blobs by layer name.
    ``learnable`` has each learned blob once; all are views of ``weights``, their gradients of ``diffs``
    (float32, (P,)), at the places that ``layout`` tells. With ``precision`` bf16 or fp16 the layers compute
    as ``precision`` says. Raises ModelError, beginning with ``source`` (a file name), for a net that cannot
    be.
    """

    def __init__(
        self,
        param: NetParameter,
        phase: int,
        level: int | None = None,
        stages: Sequence[str] = (),
        *,
        device: torch.device | str = "cpu",
        source: str = "",
        precision: str = "float32",
    ) -> None:
        self.source, self.phase, self.device = source, phase, torch.device(device)
        self.dtype = dtype_named(precision)
        self.blobs: dict[str, Blob] = {}
        self.nodes: list[Node] = []
        self.params: dict[str, list[Blob]] = {}
        self.learnable: list[Blob] = []
        self._weights = self._diffs = self.loss = torch.zeros((), device=self.device)
        self._is_partly_shared = self._has_room = False
        self.layout = Layout(())
        try:
            self._build(param, phase, level, stages)
        except ModelError as error:
            raise (
                type(error)(f"{source}: {error}") if source and type(error) is ModelError else error
            ) from None

    @classmethod
    def for_file(
        cls,
        path: str | Path,
        phase: int,
        level: int | None = None,
        stages: Sequence[str] = (),
        *,
        device: torch.device | str = "cpu",
        precision: str = "float32",
    ) -> Net:
        """The net of a prototxt file; its Python layers, if any, run the code of the modules they name."""
        net = load_net(path)
        return cls(net, phase, level, stages, device=device, source=str(path), precision=precision)

    # ---- running

    def forward(self, inputs: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Run all layers and return the outputs (blobs that no layer reads) by name.

        ``inputs`` sets tops of Input layers, of any batch size. ``loss`` is the weighted sum of the losses.
        """
        self.feed(inputs or {})
        if not self._has_room:
            self._check_room()
        self.loss = self.forward_range(0, len(self.nodes) - 1)
        return {name: self.blobs[name].data for name in self.outputs}

    def feed(self, inputs: Mapping[str, Tensor]) -> None:
        """Set input blobs; nothing is copied that is float32 and on the device already."""
        for name, value in inputs.items():
            if name not in self.input_names:
                raise ModelError(self._unknown_input(name))
            self.blobs[name].data = value.to(device=self.device, dtype=torch.float32)

    def forward_range(self, start: int, end: int) -> Tensor:
        """Run layers ``start`` to ``end`` (both run) and return their part of the loss, a 0-d tensor."""
        loss = torch.zeros((), device=self.device)
        with torch.no_grad():
            for node in self.nodes[start : end + 1]:
                node.forward()
                for top, weight in node.weighted_tops:
                    loss = loss + (top.data.sum(dtype=loss.dtype) if top.shape else top.data) * weight
                if self.debug_info:
                    node.log_forward()
        return loss

    def backward(self, on_final: Callable[[int], object] | None = None) -> None:
        """Run all layers backward from the losses. Gradients of parameters add to what ``diffs`` holds.

        ``on_final`` is told after each layer from which place in ``diffs`` on nothing will be added any more.
        """
        self.backward_range(len(self.nodes) - 1, 0, on_final)

    def backward_range(self, start: int, end: int, on_final: Callable[[int], object] | None = None) -> None:
        """Run layers ``start`` down to ``end`` (both run) backward.

        The gradient of a top is what the layers above, or the user since the last forward, have put into its
        ``diff``; else its loss weight, or 0.
        """
        with torch.no_grad():
            for number in range(start, end - 1, -1):
                node = self.nodes[number]
                if node.flow.runs:
                    node.backward()
                    if self.debug_info:
                        node.log_backward()
                if on_final:
                    on_final(self._first_places[number])

    def scale_losses(self, factor: float) -> None:
        """Let gradients be ``factor`` times what they are; ``loss`` stays what it is."""
        for node in self.nodes:
            node.loss_scale = factor

    def clear_diffs(self) -> None:
        """Set the gradients of all parameters to 0."""
        self.diffs.zero_()

    def reshape(self) -> None:
        """Let the shapes of the inputs run through the net, without computing anything."""
        for node in self.nodes:
            node.reshape([blob.shape for blob in node.bottoms])

    def share_with(self, other: Net) -> None:
        """Use the parameters of ``other`` in layers of the same name, from now on without a copy.

        Layers that only one of the nets has are left alone. Raises ModelError if shapes differ. If the nets
        have the same layout, ``weights`` and ``diffs`` are those of ``other`` as well.
        """
        for name, blobs in self.params.items():
            if name in other.params:
                self._share(name, blobs, other.params[name])
        if self.layout == other.layout:
            self._weights, self._diffs = other.weights, other.diffs
        else:
            self._is_partly_shared = True

    # ---- files

    def copy_from(self, path: str | Path) -> list[str]:
        """Take the weights of a file (``.caffemodel``, ``.h5``) for layers of the same names; these names."""
        return weight_files.load(self, path)

    def save(self, path: str | Path, *, with_diffs: bool = False) -> None:
        """Write a ``.caffemodel``, or an HDF5 file if ``path`` ends in ``.h5``."""
        weight_files.save(self, path, with_diffs=with_diffs)

    # ---- facts

    @property
    def weights(self) -> Tensor:
        """All learned numbers, float32, (P,), as ``layout`` says."""
        self._check_owns_parameters()
        return self._weights

    @property
    def diffs(self) -> Tensor:
        """Their gradients."""
        self._check_owns_parameters()
        return self._diffs

    @property
    def layer_names(self) -> list[str]:
        return [node.layer.name for node in self.nodes]

    @property
    def layers(self) -> list[Layer]:
        return [node.layer for node in self.nodes]

    def layer(self, name: str) -> Layer:
        """The layer called ``name``. Raises ModelError, with the nearest name, if there is none."""
        for node in self.nodes:
            if node.layer.name == name:
                return node.layer
        close = difflib.get_close_matches(name, self.layer_names, 1)
        raise ModelError(
            f'net "{self.name}" has no layer "{name}"' + (f'; nearest: "{close[0]}"' if close else "")
        )

    # ---- building

    def _build(self, param: NetParameter, phase: int, level: int | None, stages: Sequence[str]) -> None:
        self.param = with_splits(in_state(param, _state(param, phase, level, stages)))
        self._check_types()
        self.name = param.name
        self.debug_info = param.debug_info
        available: dict[str, None] = {}
        for layer_param in self.param.layer:
            self.nodes.append(self._node(layer_param, available))
        self.outputs = sorted(available)
        self.input_names = [
            top.name for node in self.nodes if node.is_fed for top in node.tops if top.name != ANONYMOUS
        ]
        self._allocate()
        for node in self.nodes:
            check_counts(node.layer, [top.shape for top in node.tops])
        self._plan_backward(param.force_backward)

    def _check_types(self) -> None:
        """Refuse all layers of types that there are not, at once, with their places in the file."""
        unknown = [(layer.name, layer.type) for layer in self.param.layer if layer.type not in TYPES]
        if unknown:
            places = layer_places(self.source) if self.source else {}
            raise type_refusal(unknown, TYPES, file=self.source, places=places)

    def _node(self, param: LayerParameter, available: dict[str, None]) -> Node:
        if not param.HasField("phase"):
            param.phase = self.phase  # type: ignore[assignment]  # a number is what the wire has
        layer = make_layer(param, self.device)
        bottoms = [self._bottom(layer, name, available) for name in param.bottom]
        shapes = [blob.shape for blob in bottoms]
        tops = self._tops(layer, top_shapes(layer, shapes), available)
        node = Node(layer, bottoms, tops, shapes)
        node.low = None if self.dtype == torch.float32 else self.dtype
        return node

    def _bottom(self, layer: Layer, name: str, available: dict[str, None]) -> Blob:
        if name not in available:  # a Split would stand here, had another layer read it too
            raise layer.error(f'bottom "{name}" is the top of no layer before it')
        del available[name]
        return self.blobs[name]

    def _tops(self, layer: Layer, shapes: list[Shape], available: dict[str, None]) -> list[Blob]:
        names = list(layer.param.top)
        if len(names) < len(shapes):  # only losses may leave their top unnamed
            names += [ANONYMOUS] * (len(shapes) - len(names))
        tops = []
        for i, (name, shape) in enumerate(zip(names, shapes, strict=True)):
            in_place = i < len(layer.param.bottom) and name == layer.param.bottom[i]
            if name in self.blobs and name != ANONYMOUS and not in_place:
                raise layer.error(f'top "{name}" is the top of a layer before it as well')
            blob = self.blobs[name] if in_place else Blob(name, shape, device=self.device)
            if in_place and blob.shape != shape:
                blob.reshape(*shape)
            self.blobs[name] = blob
            if name != ANONYMOUS:
                available[name] = None
            tops.append(blob)
        return tops

    def _allocate(self) -> None:
        found = allocate(self.layers, self.device)
        self.layout = found.layout
        self._weights, self._diffs, self.learnable = found.weights, found.diffs, found.learnable
        self.params = {layer.name: layer.blobs for layer in self.layers if layer.blobs}
        # a blob that is shared lies with its first reader, the last of them to run backward
        owned = [
            sum(blob.count for i, blob in enumerate(layer.blobs) if blob.name == f"{layer.name}/{i}")
            for layer in self.layers
        ]
        self._first_places = [0, *accumulate(owned)]

    def _plan_backward(self, force: bool) -> None:
        names = [([b.name for b in n.bottoms], [t.name for t in n.tops]) for n in self.nodes]
        flows = plan(
            self.layers,
            [reads for reads, _ in names],
            [writes for _, writes in names],
            [node.loss_weights for node in self.nodes],
            force=force,
        )
        writer: dict[str, Layer] = {}
        for node, flow in zip(self.nodes, flows, strict=True):
            node.set_flow(flow)
            node.layer.may_overwrite = any(
                top in node.bottoms and writer[top.name].fresh_tops for top in node.tops
            )
            writer.update({top.name: node.layer for top in node.tops})

    def _check_room(self) -> None:
        """Refuse a first forward pass whose blobs, at the sizes fed, are more than the machine holds."""
        self.reshape()
        made = {top.name: top for node in self.nodes if node.layer.type not in _VIEWS for top in node.tops}
        if too_large := excess([top.shape for top in made.values()], self.device):
            raise ModelError(f'the blobs of net "{self.name}" need {too_large}: take smaller batches')
        self._has_room = True

    def _share(self, name: str, mine: list[Blob], theirs: list[Blob]) -> None:
        shapes, other_shapes = [b.shape for b in mine], [b.shape for b in theirs]
        if shapes != other_shapes:
            raise ModelError(f'layer "{name}" has blobs of shapes {shapes} here and {other_shapes} there')
        for blob, other in zip(mine, theirs, strict=True):
            blob.data, blob.diff = other.data, other.diff

    def _check_owns_parameters(self) -> None:
        if self._is_partly_shared:
            raise ModelError(
                f'net "{self.name}" shares only some of its parameters with another net: '
                "they are no vector; use params, or learnable"
            )

    def _unknown_input(self, name: str) -> str:
        where = f"{self.source}: " if self.source else ""
        inputs = ", ".join(self.input_names) or "none"
        return f'{where}net "{self.name}" has no input "{name}"; its inputs are {inputs}'


def _state(param: NetParameter, phase: int, level: int | None, stages: Sequence[str]) -> NetState:
    state = NetState()
    state.CopyFrom(param.state)
    state.phase = phase  # type: ignore[assignment]
    if level is not None:
        state.level = level
    state.stage.extend(stages)
    return state
