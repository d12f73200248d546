"""Pictures of nets: layers and blobs as a graph, in SVG or as pixels, without graphviz.

    from sparknet.caffe import draw
    draw.draw_net_to_file(net_param, "lenet.svg", rankdir="TB")

A layer that works in place stands between the layer before it and their common blob.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont

from sparknet.caffe.graph_layout import Edge, Layout, Place, lay_out
from sparknet.caffe.schema import in_state
from sparknet.caffe.schema.caffe_pb2 import LayerParameter, NetParameter, NetState, Phase, PoolingParameter
from sparknet.errors import UsageError

RANK_DIRECTIONS = ("TB", "BT", "LR", "RL")
FONT_SIZE, LINE_HEIGHT, LETTER_WIDTH, PADDING, MARGIN = 11, 14.0, 6.4, 8.0, 16.0
FILLS = {"layer": "#6495ed", "in place": "#90ee90", "blob": "#e0e0e0"}
PIXELS_PER_UNIT = 2


@dataclass(frozen=True)
class Node:
    """A layer or a blob: its kind (a key of ``FILLS``) and the lines of its label."""

    kind: str
    lines: tuple[str, ...]

    @property
    def size(self) -> Place:
        longest = max(len(line) for line in self.lines)
        return longest * LETTER_WIDTH + 2 * PADDING, len(self.lines) * LINE_HEIGHT + PADDING


@dataclass
class Graph:
    """The picture before it is laid out; no edge leads to a node that was added before its source."""

    name: str
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)


def draw_net(
    caffe_net: NetParameter,
    rankdir: str = "LR",
    ext: str = "png",
    phase: int | None = None,
    display_lrm: bool = False,
) -> bytes:
    """The picture of a net as a file's contents; ``ext`` is svg, dot, or any format that Pillow writes.

    ``rankdir`` is the way from input to output: TB, BT, LR or RL. ``phase`` leaves out layers of the other
    one, ``display_lrm`` adds the learning rate multipliers. Raises UsageError for another direction or
    format.
    """
    if rankdir not in RANK_DIRECTIONS:
        raise UsageError(f"rankdir is one of {', '.join(RANK_DIRECTIONS)}, not {rankdir}")
    net = caffe_net if phase is None else in_state(caffe_net, NetState(phase=Phase.Name(phase)))
    graph = graph_of(net, display_lrm=display_lrm)
    if ext in ("dot", "gv", "raw"):
        return _dot(graph, rankdir).encode()
    picture = _Picture(graph, rankdir)
    return picture.svg().encode() if ext == "svg" else picture.pixels(ext)


def draw_net_to_file(
    caffe_net: NetParameter,
    filename: str | Path,
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Draw to a file; what its name ends in is the format."""
    path = Path(filename)
    path.write_bytes(draw_net(caffe_net, rankdir, path.suffix.lstrip(".") or "png", phase, display_lrm))


def graph_of(net: NetParameter, *, display_lrm: bool = False) -> Graph:
    """The layers and blobs of ``net`` as nodes, and who reads and writes what as edges."""
    graph = Graph(net.name)
    last: dict[str, str] = {}  # blob name -> the layer that wrote it last, or the node of the blob
    for index, name in enumerate(net.input):
        last[name] = f"input {index}"
        graph.nodes[last[name]] = Node("blob", (name,))
    for index, layer in enumerate(net.layer):
        key = f"layer {index}"
        in_place = bool(layer.bottom) and list(layer.bottom) == list(layer.top)
        sources = [last.get(name) if in_place else _blob_node(graph, last, name) for name in layer.bottom]
        graph.nodes[key] = Node("in place" if in_place else "layer", layer_label(layer, display_lrm))
        graph.edges += [(source, key) for source in sources if source is not None]
        last.update(dict.fromkeys(layer.top, key))
    for name in list(last):
        _blob_node(graph, last, name)
    return graph


def layer_label(layer: LayerParameter, display_lrm: bool = False) -> tuple[str, ...]:
    """The lines in a layer's box: its name, its type, and the sizes that tell such layers apart."""
    lines = [layer.name, f"({layer.type})"]
    if layer.HasField("convolution_param"):
        window = layer.convolution_param
        kernel = "x".join(map(str, window.kernel_size)) or f"{window.kernel_h}x{window.kernel_w}"
        stride, pad = ("x".join(map(str, sizes)) for sizes in (window.stride or [1], window.pad or [0]))
        lines.append(f"{window.num_output} outputs, kernel {kernel}, stride {stride}, pad {pad}")
    elif layer.HasField("pooling_param"):
        pool = layer.pooling_param
        method = PoolingParameter.PoolMethod.Name(pool.pool)
        size = "global" if pool.global_pooling else f"kernel {pool.kernel_size or pool.kernel_h}"
        lines.append(f"{method}, {size}, stride {pool.stride}, pad {pool.pad}")
    elif layer.HasField("inner_product_param"):
        lines.append(f"{layer.inner_product_param.num_output} outputs")
    if display_lrm and layer.param:
        lines.append("lr_mult " + ", ".join(f"{param.lr_mult:g}" for param in layer.param))
    return tuple(lines)


def _blob_node(graph: Graph, last: dict[str, str], name: str) -> str:
    """The node of the blob's present state, made when it is first needed."""
    writer = last.get(name)
    if writer is not None and graph.nodes[writer].kind == "blob":
        return writer
    key = f"blob {name} after {writer}"
    graph.nodes[key] = Node("blob", (name,))
    if writer is not None:
        graph.edges.append((writer, key))
    last[name] = key
    return key


class _Picture:
    """A laid out graph, and how to put it on paper."""

    def __init__(self, graph: Graph, rankdir: str) -> None:
        self.graph, self.rankdir = graph, rankdir
        self.sideways = rankdir in ("LR", "RL")
        sizes = {key: node.size[::-1] if self.sideways else node.size for key, node in graph.nodes.items()}
        self.layout: Layout = lay_out(sizes, graph.edges)
        extent = (self.layout.width, self.layout.height)
        width, height = extent[::-1] if self.sideways else extent
        self.width, self.height = width + 2 * MARGIN, height + 2 * MARGIN

    def svg(self) -> str:
        lines = "\n".join(self._svg_lines())
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:.0f}" height="{self.height:.0f}"'
            f' font-family="monospace" font-size="{FONT_SIZE}">\n'
            f"<title>{escape(self.graph.name)}</title>\n"
            '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="3" orient="auto">'
            '<path d="M0,0 L7,3 L0,6 z"/></marker></defs>\n'
            f'<rect width="100%" height="100%" fill="white"/>\n{lines}\n</svg>\n'
        )

    def pixels(self, ext: str) -> bytes:
        size = int(self.width * PIXELS_PER_UNIT), int(self.height * PIXELS_PER_UNIT)
        image = Image.new("RGB", size, "white")
        self._paint(ImageDraw.Draw(image))
        buffer = io.BytesIO()
        try:
            image.save(buffer, format={"jpg": "jpeg", "tif": "tiff"}.get(ext, ext))
        except (KeyError, ValueError, OSError) as error:
            raise UsageError(f'pictures cannot be written as "{ext}": use svg, png or dot') from error
        return buffer.getvalue()

    def _svg_lines(self) -> Iterator[str]:
        for points in self._routes():
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            yield f'<polyline points="{path}" fill="none" stroke="black" marker-end="url(#tip)"/>'
        for node, (x, y) in self._boxes():
            width, height = node.size
            corner = f'x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" rx="{_roundness(node):.0f}"'
            size = f'width="{width:.1f}" height="{height:.1f}"'
            yield f'<rect {corner} {size} fill="{FILLS[node.kind]}" stroke="black"/>'
            for line, centre in _line_centres(node, y):
                yield (
                    f'<text x="{x:.1f}" y="{centre:.1f}" text-anchor="middle" '
                    f'dominant-baseline="central">{escape(line)}</text>'
                )

    def _paint(self, draw: ImageDraw.ImageDraw) -> None:
        scale = PIXELS_PER_UNIT
        font = ImageFont.load_default(FONT_SIZE * scale)
        for points in self._routes():
            draw.line([(x * scale, y * scale) for x, y in points], fill="black", width=scale)
            (x, y), tip = points[-1], 3 * scale
            draw.ellipse((x * scale - tip, y * scale - tip, x * scale + tip, y * scale + tip), fill="black")
        for node, (x, y) in self._boxes():
            half_width, half_height = (side / 2 for side in node.size)
            corners = (x - half_width, y - half_height, x + half_width, y + half_height)
            draw.rounded_rectangle(
                tuple(value * scale for value in corners),
                _roundness(node) * scale,
                fill=FILLS[node.kind],
                outline="black",
            )
            for line, centre in _line_centres(node, y):
                draw.text((x * scale, centre * scale), line, fill="black", font=font, anchor="mm")

    def _boxes(self) -> Iterator[tuple[Node, Place]]:
        place = self._on_paper()
        for key, node in self.graph.nodes.items():
            yield node, place(self.layout.places[key])

    def _routes(self) -> Iterator[list[Place]]:
        """The lines from the edge of one box, by the bends, to the edge of the next."""
        place = self._on_paper()
        for (source, target), points in self.layout.routes:
            start, *bends, end = (place(point) for point in points)
            yield [
                _leaving(self.graph.nodes[source], start, [*bends, end][0]),
                *bends,
                _leaving(self.graph.nodes[target], end, [start, *bends][-1]),
            ]

    def _on_paper(self) -> Callable[[Place], Place]:
        depth = self.layout.height

        def place(point: Place) -> Place:
            along, across = point
            if self.rankdir in ("BT", "RL"):
                across = depth - across
            x, y = (across, along) if self.sideways else (along, across)
            return x + MARGIN, y + MARGIN

        return place


def _leaving(node: Node, centre: Place, towards: Place) -> Place:
    """Where the line from ``centre`` to ``towards`` crosses the border of the box."""
    (x, y), (dx, dy) = centre, (towards[0] - centre[0], towards[1] - centre[1])
    sides = zip((dx, dy), node.size, strict=True)
    share = min((side / 2 / abs(step) for step, side in sides if step), default=0.0)
    return x + dx * min(share, 1.0), y + dy * min(share, 1.0)


def _line_centres(node: Node, y: float) -> Iterator[tuple[str, float]]:
    first = y - (len(node.lines) - 1) * LINE_HEIGHT / 2
    return ((line, first + index * LINE_HEIGHT) for index, line in enumerate(node.lines))


def _roundness(node: Node) -> float:
    return node.size[1] / 2 if node.kind == "blob" else 3.0


def _dot(graph: Graph, rankdir: str) -> str:
    """The graph for graphviz, for those who have it."""
    numbers = {key: f"n{index}" for index, key in enumerate(graph.nodes)}
    lines = [f'digraph "{graph.name}" {{', f"  rankdir={rankdir};"]
    for key, node in graph.nodes.items():
        label = "\\n".join(line.replace('"', '\\"') for line in node.lines)
        lines.append(f'  {numbers[key]} [label="{label}", style=filled, fillcolor="{FILLS[node.kind]}"];')
    lines += [f"  {numbers[source]} -> {numbers[target]};" for source, target in graph.edges]
    return "\n".join([*lines, "}", ""])
