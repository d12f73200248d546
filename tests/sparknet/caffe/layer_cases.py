"""Cases of one layer each, with numbers of real Caffe: how they are stored and compared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparknet.caffe import schema
from sparknet.caffe.net import Net

TOLERANCE = 2e-5  # of the largest element: what float32 allows


@dataclass(frozen=True)
class LayerCase:
    """One prototxt and its numbers."""

    folder: Path
    name: str
    phase: int
    has_backward: bool
    forwards: int

    @cached_property
    def numbers(self) -> dict[str, np.ndarray[Any, Any]]:
        with np.load(self.folder / f"{self.name}.npz") as file:
            return dict(file)

    def net(self, device: str = "cpu", precision: str = "float32") -> Net:
        """The case's net, with the case's parameters."""
        path = self.folder / f"{self.name}.prototxt"
        net = Net.for_file(path, self.phase, device=device, precision=precision)
        for (layer, index), values in self.named("param"):
            net.params[layer][int(index)].data.copy_(torch.from_numpy(values))
        return net

    def run(self, device: str = "cpu", precision: str = "float32", *, touched: bool = False) -> Net:
        """The net after the case's forward and backward passes.

        If ``touched``, every blob is written to in between, as users do by hand: with what it holds.
        """
        net = self.net(device, precision)
        inputs = {
            name if name in net.input_names else f"{name}_in": torch.from_numpy(v)
            for (name,), v in self.named("in")
        }
        for _ in range(self.forwards):
            net.forward(inputs)
        for blob in net.blobs.values() if touched else ():
            blob.data.copy_(blob.data.clone())
        if self.has_backward:
            for (blob,), values in self.named("topdiff"):
                net.blobs[blob].diff = torch.from_numpy(values).to(device)
            net.backward()
        return net

    def mismatches(self, net: Net) -> list[str]:
        """What of ``net`` is not as Caffe has it, by name."""
        found: list[str] = []
        for (blob,), values in self.named("out"):
            found += _difference(f"out {blob}", net.blobs[blob].data, values)
        for (layer, index), values in self.named("param_after"):
            found += _difference(f"param {layer}/{index}", net.params[layer][int(index)].data, values)
        if not self.has_backward:
            return found
        for (layer, index), values in self.named("paramdiff"):
            found += _difference(f"paramdiff {layer}/{index}", net.params[layer][int(index)].diff, values)
        for (blob,), values in (*self.named("indiff"), *self.named("blobdiff")):
            # Caffe's Scale uses its bottom's diff as scratch memory where nobody wants the gradient
            if not blob.endswith("_in"):
                found += _difference(f"diff {blob}", net.blobs[blob].diff, values)
        return found

    def named(self, kind: str) -> list[tuple[list[str], np.ndarray[Any, Any]]]:
        parts = [(key.split("/"), values) for key, values in self.numbers.items()]
        return [(rest, values) for (first, *rest), values in parts if first == kind]


def layer_cases(folder: Path) -> list[LayerCase]:
    """The cases of an oracle folder."""
    index = json.loads((folder / "index.json").read_text())
    return [
        LayerCase(
            folder,
            case["name"],
            schema.TRAIN if case["phase"] == "TRAIN" else schema.TEST,
            case["backward"],
            1 + case["fwd_twice"],
        )
        for case in index["cases"]
    ]


def _difference(what: str, found: torch.Tensor, expected: np.ndarray[Any, Any]) -> list[str]:
    mine = found.cpu().numpy()
    if mine.shape != expected.shape:
        return [f"{what}: shape {mine.shape}, not {expected.shape}"]
    finite = np.isfinite(expected)
    if (np.isfinite(mine) != finite).any():
        return [f"{what}: not finite at other places"]
    if not finite.any():
        return []
    scale = max(float(np.abs(expected[finite]).max()), 1e-6)
    worst = float(np.abs(mine[finite].astype(np.float64) - expected[finite]).max()) / scale
    return [f"{what}: {worst:.1e} off"] if worst > TOLERANCE else []
