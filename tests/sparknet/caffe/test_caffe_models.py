"""The nets and solvers of BVLC Caffe's own models/ and examples/: they parse, build and have Caffe's shapes.

    SPARKNET_CAFFE_MODELS=~/caffe pytest tests/sparknet/caffe/test_caffe_models.py

The folder is a checkout of https://github.com/BVLC/caffe (its prototxt files will do). ``caffe_nets.json``
holds, for every net in every phase, the number of parameters, the number of blobs, and a digest of the names
and shapes of all blobs that real Caffe built, with the data layers replaced as ``_without_records`` does.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from sparknet import caffe
from sparknet.caffe.net import Net
from sparknet.caffe.schema import TEST, TRAIN, load_net, load_solver, replace_data_layers
from sparknet.caffe.schema.caffe_pb2 import LayerParameter, NetParameter
from sparknet.caffe.solver import Solver
from sparknet.errors import DataError, ModelError

ROOT = Path(os.environ.get("SPARKNET_CAFFE_MODELS", "nowhere"))
GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "caffe_nets.json").read_text())
PHASES = {"TRAIN": TRAIN, "TEST": TEST}
PICTURES = {"siamese": (2, 28, 28), "mnist": (1, 28, 28), "cifar": (3, 32, 32)}
RECORDS = ("Data", "ImageData", "WindowData", "HDF5Data")

pytestmark = [
    pytest.mark.skipif(
        not (ROOT / "models").is_dir(), reason="SPARKNET_CAFFE_MODELS names no checkout of BVLC Caffe"
    ),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def _pycaffe_by_its_old_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python layer of examples/pycaffe says ``import caffe``."""
    monkeypatch.setitem(sys.modules, "caffe", caffe)
    monkeypatch.syspath_prepend(ROOT / "examples" / "pycaffe" / "layers")


def _picture(file: str, layer: LayerParameter) -> tuple[int, ...]:
    """What a record of the layer is like after the transformation."""
    if layer.transform_param.crop_size:
        return (3, layer.transform_param.crop_size, layer.transform_param.crop_size)
    if layer.type == "HDF5Data":
        return (4,)
    return next((shape for name, shape in PICTURES.items() if name in file), (3, 256, 256))


def _without_records(file: str) -> NetParameter:
    """The net, its records replaced by zeros of their shapes."""
    net = load_net(ROOT / file)
    for layer in net.layer:
        if layer.type in RECORDS:
            settings = [field for field, _ in layer.ListFields() if field.name.endswith("data_param")]
            batch = getattr(layer, settings[0].name).batch_size
            shape = _picture(file, layer)
            for field in settings:
                layer.ClearField(field.name)  # type: ignore[arg-type]
            layer.ClearField("transform_param")
            layer.type = "DummyData"
            for i in range(len(layer.top)):
                layer.dummy_data_param.shape.add(dim=[batch, *(shape if i == 0 else ())])
    return net


def _facts(net: Net) -> dict[str, object]:
    lines = sorted(f"{name} {'x'.join(map(str, blob.shape))}" for name, blob in net.blobs.items())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    return {"parameters": net.layout.size, "blobs": len(lines), "shapes": digest}


@pytest.mark.parametrize("case", GOLDEN)
def test_a_net_of_caffe_has_caffes_blobs_and_parameters(case: str) -> None:
    file, phase, *stages = case.split(" ")
    net = Net(_without_records(file), PHASES[phase], stages=stages)
    assert _facts(net) == GOLDEN[case]


@pytest.mark.parametrize("file", sorted({case.split(" ")[0] for case in GOLDEN}))
def test_a_net_that_reads_records_names_those_that_are_missing_and_can_be_fed_instead(file: str) -> None:
    net = load_net(ROOT / file)
    if not any(layer.type in RECORDS for layer in net.layer):
        pytest.skip("reads no records")
    missing = [layer for layer in net.layer if layer.type in RECORDS]
    with pytest.raises((DataError, ModelError)) as caught:
        Net(net, TRAIN, source=file)
    sources = [getattr(layer, f.name).source for layer in missing for f, _ in layer.ListFields()
               if f.name.endswith("data_param")]  # fmt: skip
    means = [layer.transform_param.mean_file for layer in missing if layer.transform_param.mean_file]
    assert any(source in str(caught.value) for source in (*sources, *means))
    layer = missing[0]
    shape = _picture(file, layer)
    fed = Net(replace_data_layers(net, 2, 2, *(*shape, 1, 1)[:3]), TRAIN)
    assert fed.blobs[fed.input_names[0]].shape[0] == 2


def _solvers() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("*/**/*solver*.prototxt"))


@pytest.mark.parametrize("file", _solvers())
def test_a_solver_of_caffe_can_be_built(file: str) -> None:
    param = load_solver(ROOT / file)
    named = param.net or param.train_net
    if named and not (ROOT / named).is_file():
        with pytest.raises(ModelError, match=named):  # examples/mnist/lenet_auto_*: a notebook writes them
            Solver.for_param(param, file=ROOT / file)
        return
    if named:
        net = _without_records(named)
        param.ClearField("net")
        param.net_param.CopyFrom(net)
    else:
        for layer in param.net_param.layer:
            layer.transform_param.Clear()
        param.net_param.CopyFrom(replace_data_layers(param.net_param, 2, 2, 1, 28, 28))
    solver = Solver.for_param(param, file=ROOT / file)
    assert solver.lr > 0
    assert len(solver.test_nets) == len(param.test_iter)
