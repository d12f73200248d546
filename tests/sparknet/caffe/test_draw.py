"""Pictures of nets show every layer and blob, and none on top of another."""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from sparknet.caffe import draw
from sparknet.caffe.graph_layout import lay_out
from sparknet.caffe.schema import parse_net
from sparknet.caffe.schema.caffe_pb2 import TEST, TRAIN, NetParameter
from sparknet.errors import UsageError

SVG = "{http://www.w3.org/2000/svg}"

NET = parse_net("""
name: "branches & ends"
input: "data" input_shape { dim: [1, 3, 8, 8] }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        param { lr_mult: 1 } param { lr_mult: 2 }
        convolution_param { num_output: 4 kernel_size: 3 stride: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "join" type: "Concat" bottom: "conv" bottom: "pool" top: "join" include { phase: TRAIN } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 2 } }
""")


def texts(svg: bytes) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def boxes(svg: bytes) -> list[tuple[float, float, float, float]]:
    found = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    rects = [tuple(float(r.get(k, "")) for k in ("x", "y", "width", "height")) for r in found if r.get("x")]
    return [(x, y, x + w, y + h) for x, y, w, h in rects]


@pytest.mark.parametrize("rankdir", draw.RANK_DIRECTIONS)
def test_every_layer_and_blob_is_drawn_and_none_hides_another(rankdir: str) -> None:
    svg = draw.draw_net(NET, rankdir, "svg")
    assert {"conv", "relu", "pool", "join", "ip", "data"} <= set(texts(svg))
    assert "4 outputs, kernel 3, stride 2, pad 0" in texts(svg)
    for a, b in combinations(boxes(svg), 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_layer_in_place_stands_before_the_blob_it_changes() -> None:
    graph = draw.graph_of(NET)
    label = {key: node.lines[0] for key, node in graph.nodes.items()}
    edges = [(label[source], label[target]) for source, target in graph.edges]
    assert ("conv", "relu") in edges
    assert ("relu", "conv") in edges
    assert [node.lines[0] for node in graph.nodes.values() if node.kind == "in place"] == ["relu"]


def test_the_other_phase_is_left_out_on_demand() -> None:
    assert "join" not in texts(draw.draw_net(NET, "TB", "svg", phase=TEST))
    assert "join" in texts(draw.draw_net(NET, "TB", "svg", phase=TRAIN))


def test_the_multipliers_are_shown_on_demand() -> None:
    assert "lr_mult 1, 2" in texts(draw.draw_net(NET, "TB", "svg", display_lrm=True))


def test_a_net_can_be_drawn_as_pixels(tmp_path: Path) -> None:
    file = tmp_path / "net.png"
    draw.draw_net_to_file(NET, file, "TB")
    with Image.open(file) as image:
        colours = {colour for _, colour in image.getcolors(1 << 24) or []}
    assert (0x64, 0x95, 0xED) in colours
    assert (0x90, 0xEE, 0x90) in colours


def test_left_to_right_is_wide_and_top_to_bottom_is_high() -> None:
    wide, high = (Image.open(io.BytesIO(draw.draw_net(NET, way, "png"))).size for way in ("LR", "TB"))
    assert wide[0] > high[0]
    assert wide[1] < high[1]


def test_graphviz_text_has_every_edge() -> None:
    assert draw.draw_net(NET, "LR", "dot").decode().count("->") == len(draw.graph_of(NET).edges)


def test_an_empty_net_can_be_drawn() -> None:
    assert draw.draw_net(NetParameter(), "TB", "png")


def test_a_format_or_direction_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match='"xyz": use svg, png or dot'):
        draw.draw_net(NET, "TB", "xyz")
    with pytest.raises(UsageError, match="rankdir is one of"):
        draw.draw_net(NET, "UP", "svg")


def test_a_long_edge_bends_round_the_nodes_it_passes() -> None:
    sizes = dict.fromkeys("abcd", (10.0, 10.0))
    layout = lay_out(sizes, [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")])
    route = dict(layout.routes)["a", "d"]
    assert len(route) == 4
    for bend, passed in zip(route[1:3], "bc", strict=True):
        assert abs(bend[0] - layout.places[passed][0]) >= 5
        assert bend[1] == layout.places[passed][1]
