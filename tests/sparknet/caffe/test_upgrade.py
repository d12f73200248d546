"""Old nets and solvers become what Caffe makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparknet.caffe import schema
from sparknet.caffe.schema import caffe_pb2
from sparknet.caffe.schema.unused import UnusedSetting
from sparknet.errors import ModelError
from tests.sparknet.caffe.oracle import oracle_file

GOLDEN = Path(__file__).parents[2] / "golden" / "caffe_upgrade"
ORACLE = oracle_file("upgrade")


def _legacy(folder: Path | None) -> list[Path]:
    return sorted(p for p in folder.glob("*.prototxt") if ".upgraded" not in p.name) if folder else []


@pytest.mark.parametrize(
    "path", [*_legacy(GOLDEN), *_legacy(ORACLE)], ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_a_legacy_net_becomes_what_caffe_makes_of_it(path: Path) -> None:
    expected = schema.NetParameter()
    schema.parse(schema.read(path.with_suffix(".upgraded.prototxt")), expected)
    assert schema.load_net(path) == expected


def test_a_net_of_2013_becomes_a_net_of_today() -> None:
    net = schema.parse_net(
        """
        name: "v0"
        layers { layer { name: "data" type: "data" source: "db" meanfile: "m.binaryproto" batchsize: 16
                         cropsize: 27 mirror: true scale: 0.5 rand_skip: 3 } top: "data" top: "label" }
        layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "pad1" }
        layers { layer { name: "conv1" type: "conv" num_output: 4 kernelsize: 5 stride: 2 group: 2
                         biasterm: false weight_filler { type: "xavier" } blobs_lr: 1 weight_decay: 3 }
                 bottom: "pad1" top: "conv1" }
        layers { layer { name: "pool1" type: "pool" pool: AVE kernelsize: 3 stride: 2 }
                 bottom: "conv1" top: "p" }
        layers { layer { name: "norm" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.5 } bottom: "p" top: "n" }
        layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.2 } bottom: "n" top: "n" }
        layers { layer { name: "ip" type: "innerproduct" num_output: 10 } bottom: "n" top: "ip" }
        layers { layer { name: "loss" type: "softmax_loss" } bottom: "ip" bottom: "label" }
        """
    )
    expected = schema.parse_net(
        """
        name: "v0"
        layer { name: "data" type: "Data" top: "data" top: "label"
                transform_param { mean_file: "m.binaryproto" crop_size: 27 mirror: true scale: 0.5 }
                data_param { source: "db" batch_size: 16 rand_skip: 3 } }
        layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
                param { lr_mult: 1 decay_mult: 3 }
                convolution_param { num_output: 4 pad: 2 kernel_size: 5 stride: 2 group: 2 bias_term: false
                                    weight_filler { type: "xavier" } } }
        layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "p"
                pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
        layer { name: "norm" type: "LRN" bottom: "p" top: "n"
                lrn_param { local_size: 3 alpha: 0.1 beta: 0.5 } }
        layer { name: "drop" type: "Dropout" bottom: "n" top: "n" dropout_param { dropout_ratio: 0.2 } }
        layer { name: "ip" type: "InnerProduct" bottom: "n" top: "ip" inner_product_param { num_output: 10 } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" }
        """
    )
    assert net == expected


def test_preprocessing_in_data_param_moves_to_transform_param() -> None:
    net = schema.parse_net(
        'layer { type: "Data" data_param { source: "x" scale: 0.5 mean_file: "m" crop_size: 3 mirror:'
        " true } }"
        'layer { type: "WindowData" window_data_param { crop_size: 7 } }'
    )
    assert net == schema.parse_net(
        'layer { type: "Data" data_param { source: "x" }'
        ' transform_param { scale: 0.5 mean_file: "m" crop_size: 3 mirror: true } }'
        'layer { type: "WindowData" window_data_param { } transform_param { crop_size: 7 } }'
    )


def test_every_v1_type_has_a_name_of_today() -> None:
    for name in caffe_pb2.V1LayerParameter.LayerType.keys():  # noqa: SIM118 - an enum wrapper, no dict
        net = schema.parse_net(f'layers {{ name: "l" type: {name} }}')
        assert bool(net.layer[0].type) == (name != "NONE")


def test_a_solver_type_of_old_becomes_a_name() -> None:
    assert schema.parse_solver("solver_type: ADADELTA").type == "AdaDelta"
    assert schema.parse_solver("solver_type: SGD").type == "SGD"
    with pytest.raises(ModelError, match="both type and solver_type"):
        schema.parse_solver('solver_type: SGD type: "Adam"')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('layer { name: "a" } layers { name: "b" }', "both layer and layers"),
        ('input: "x" input_dim: 1 input_dim: 2', "takes 4 for each"),
        ('input: "x" input_dim: [1, 2, 3, 4] input_shape { dim: 1 }', "keep one"),
        ('layers { layer { name: "r" type: "rellu" } }', 'unknown type "rellu"'),
        (
            'input: "x" input_dim: [1, 1, 1, 1] layers { layer { name: "p" type: "padding" pad: 1 }'
            ' bottom: "x" top: "p" }'
            ' layers { layer { name: "r" type: "relu" } bottom: "p" top: "r" }',
            "only conv and pool can",
        ),
    ],
)
def test_contradictions_in_old_nets_are_errors(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        schema.parse_net(text)


@pytest.mark.parametrize(
    ("kind", "setting"),
    [("relu", "kernelsize: 3"), ("conv", "dropout_ratio: 0.5"), ("lrn", "weight_filler { value: 1 }")],
)
def test_a_setting_that_a_v0_layer_never_had_is_left_out_with_a_warning(kind: str, setting: str) -> None:
    name = setting.split(maxsplit=1)[0].rstrip(":")
    with pytest.warns(UnusedSetting, match=f'V0 layer "r" of type {kind} has no setting {name}'):
        net = schema.parse_net(f'layers {{ layer {{ name: "r" type: "{kind}" {setting} }} }}')
    assert net == schema.parse_net(f'layers {{ layer {{ name: "r" type: "{kind}" }} }}')
