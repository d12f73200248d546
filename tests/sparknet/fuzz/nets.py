"""Nets, solvers, and the binary files of Caffe: valid ones, and what reads them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path

from tests.sparknet.fuzz.records import make_pictures

ROOT = Path(__file__).parents[3]
MODELS = ROOT / "apps" / "models"
LAYERS = ROOT / "tests" / "golden" / "caffe_layers"


def layer_nets(folder: Path) -> list[Path]:
    files = [*sorted(LAYERS.glob("*.prototxt")), *sorted(MODELS.glob("*_train_test.prototxt"))]
    copies = []
    for file in files:
        if any(large in file.name for large in ("googlenet", "resnet", "alexnet", "caffenet", "squeezenet")):
            continue
        text = re.sub(r"dim: (64|100)\b", "dim: 2", file.read_text())
        copies.append(folder / file.name)
        copies[-1].write_text(text)
    return copies


def run_net(path: Path) -> None:
    from sparknet.caffe.net import Net

    for phase in (0, 1):
        net = Net.for_file(path, phase)
        if sum(blob.count for blob in net.blobs.values()) + net.layout.size < 300_000:
            net.forward()
            net.backward()


def read_tolerantly(path: Path) -> None:
    from sparknet.caffe.net import Net
    from sparknet.caffe.schema import load_net_tolerantly

    Net(load_net_tolerantly(path)[0], 1)


SOLVER_NET = """
  layer { name: "d" type: "DummyData" top: "x" top: "t" dummy_data_param { shape { dim: 2 dim: 3 }
          shape { dim: 2 dim: 2 } data_filler { type: "gaussian" std: 1 } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
          inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
  layer { name: "l" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "l" }
"""


def solvers(folder: Path) -> list[Path]:
    files = []
    for kind in ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"):
        momentum = "" if kind in ("AdaGrad", "RMSProp") else "momentum: 0.9\n"
        policies = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")
        for policy in policies if kind == "SGD" else ("inv",):
            files.append(folder / f"{kind}_{policy}.prototxt")
            files[-1].write_text(
                f'net_param {{ name: "n" {SOLVER_NET} }}\ntype: "{kind}"\nbase_lr: 0.1\n{momentum}'
                f'lr_policy: "{policy}"\ngamma: 0.5\npower: 0.75\nstepsize: 2\nstepvalue: 1\nstepvalue: 3\n'
                "weight_decay: 0.01\nmax_iter: 3\ntest_iter: 1\ntest_interval: 2\naverage_loss: 2\n"
                "iter_size: 2\nclip_gradients: 1\nrms_decay: 0.9\nmomentum2: 0.99\ndelta: 1e-8\n"
                'regularization_type: "L2"\nsnapshot: 2\nsnapshot_format: BINARYPROTO\nrandom_seed: 3\n'
                f'snapshot_prefix: "{folder}/out/s"\ndisplay: 1\ndebug_info: false\ntest_compute_loss: true\n'
            )
    return files


def run_solver(path: Path) -> None:
    from sparknet.caffe.solver import Solver

    solver = Solver.for_file(path)
    if solver.param.max_iter <= 10 and solver.param.iter_size <= 10 and sum(solver.param.test_iter) < 10:
        solver.solve()


SMALL = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "fc/1" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 5 } }
"""


def weights(ending: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        from sparknet.caffe import schema
        from sparknet.caffe.net import Net

        path = folder / f"weights.{ending}"
        Net(schema.parse_net(SMALL), 1).save(path)
        return [path]

    return make


def old_weights(folder: Path) -> list[Path]:
    from sparknet.caffe.schema import NetParameter

    paths = []
    for version in ("v1", "v0"):
        net = NetParameter()
        layer = net.layers.add()
        if version == "v0":
            layer.layer.name, layer.layer.type = "conv", "conv"
        else:
            layer.name, layer.type = "conv", 4
        blobs = layer.layer.blobs if version == "v0" else layer.blobs
        blobs.add(num=4, channels=3, height=3, width=3, data=[0.5] * 108)
        blobs.add(num=1, channels=1, height=1, width=4, data=[1, 2, 3, 4])
        paths.append(folder / f"{version}.caffemodel")
        paths[-1].write_bytes(net.SerializeToString())
    return paths


def copy_weights(path: Path) -> None:
    from sparknet.caffe import schema
    from sparknet.caffe.net import Net

    Net(schema.parse_net(SMALL), 1).copy_from(path)


def upgrade_weights(path: Path) -> None:
    from sparknet import cli

    with warnings.catch_warnings(action="ignore"):
        cli.cli(["caffe", "upgrade", str(path), str(path.with_suffix(".out"))], standalone_mode=False)


def states(ending: str) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        import torch

        from sparknet.caffe.files import solver_state
        from sparknet.caffe.files.solver_state import SolverState

        path = folder / f"s.{ending}"
        history = (torch.ones(2, 3), torch.ones(2))
        solver_state.write(path, SolverState(iter=7, current_step=1, history=history))
        return [path]

    return make


def restore(path: Path) -> None:
    from sparknet.caffe.schema import parse_solver
    from sparknet.caffe.solver import Solver

    solver = Solver.for_param(
        parse_solver(
            f'net_param {{ {SOLVER_NET} }} base_lr: 0.1 lr_policy: "multistep" stepvalue: 9 max_iter: 8'
        )
    )
    solver.restore(path)
    solver.step(1)


def mean(folder: Path) -> list[Path]:
    import torch

    from sparknet.caffe.files import blobs

    blobs.write_blob(torch.ones(1, 3, 4, 4), folder / "mean.binaryproto")
    return [folder / "mean.binaryproto"]


def read_mean(path: Path) -> None:
    from sparknet.caffe import schema
    from sparknet.caffe.files import blobs
    from sparknet.caffe.net import Net

    blobs.read_blob(path)
    folder = path.parent
    if not (folder / "pictures.txt").exists():
        make_pictures(folder)
    Net(
        schema.parse_net(
            'layer { name: "d" type: "ImageData" top: "data" top: "label" image_data_param { source: '
            f'"{folder}/pictures.txt" batch_size: 1 }} transform_param {{ mean_file: "{path}" }} }}'
        ),
        1,
    ).forward()
