"""Charts as SVG, drawn by matplotlib and left without colours: the page's style sheet has those.

matplotlib writes a style into every element, which a page's content security policy forbids, and which no
dark mode could change. Here they become classes: ``curve-1`` and on, ``grid``, ``axis``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from sparknet.reporting.curves import Chart, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Locator

# In points; a card of the page is about as many pixels wide.
WIDTH, HEIGHT = 350.0, 150.0
LEFT, BOTTOM, RIGHT, TOP = 0.115, 0.145, 0.985, 0.96
"""Where the axes lie, as shares of width and height; page.css lays the cursor over the same place."""

# Points of a curve at most: more than one a pixel cannot be seen.
_POINTS = 400
# Up to so many points each has a dot: two tests far apart are two dots, not a trend.
_DOTS = 40

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


def svg(chart: Chart) -> str:
    """An ``<svg>`` element; empty where the chart has no point."""
    if chart.rounds is None:
        return ""
    # it takes a second to import, which only whoever draws should pay
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
    axes = figure.add_axes((LEFT, BOTTOM, RIGHT - LEFT, TOP - BOTTOM))
    _draw(axes, chart)
    drawn = io.StringIO()
    # text stays text; the salt makes the ids of one page differ, and those of one run the same
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": chart.key}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    return _plain(drawn.getvalue(), chart)


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """The lowest and the highest of each of so many stretches: spikes stay where they are."""
    if len(points) <= _POINTS:
        return points
    stretch = -(-2 * len(points) // _POINTS)
    kept: list[Point] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        low, high = (pick(part, key=lambda point: point[1]) for pick in (min, max))
        kept += sorted({low, high})
    return kept


def _draw(axes: Axes, chart: Chart) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    assert chart.rounds is not None
    for place, curve in enumerate(chart.curves, start=1):
        if curve.points:
            dots = "o" if len(curve.points) <= _DOTS else ""
            rounds, values = zip(*thinned(curve.points), strict=True)
            axes.plot(rounds, values, marker=dots, markersize=3.2, linewidth=1.6, gid=f"curve-{place}")
    first, last = chart.rounds
    axes.set_xlim(first, max(last, first + 1))
    _fit(axes, chart)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(_y_ticks(axes, chart))
    axes.yaxis.set_major_formatter(FuncFormatter(_short))
    axes.tick_params(length=0, pad=5, labelsize=10)
    axes.grid(visible=True, axis="y")
    for line in axes.lines:
        line.set_clip_on(False)
    for line in axes.get_ygridlines():
        line.set_gid("grid")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_gid("axis")


def _fit(axes: Axes, chart: Chart) -> None:
    """Room above what is counted from 0, and around what does not change."""
    low, high = axes.get_ylim()
    if chart.counts:
        axes.set_ylim(0, max(high, 1e-9) * 1.05)
    elif _flat(axes) is not None:
        axes.set_ylim(low - 0.5 * abs(low), high + 0.5 * abs(high) or 1.0)


def _y_ticks(axes: Axes, chart: Chart) -> Locator:
    from matplotlib.ticker import FixedLocator, MaxNLocator

    flat = _flat(axes)
    whole = chart.key == "members"
    return MaxNLocator(4, integer=whole) if flat is None or chart.counts else FixedLocator([flat])


def _flat(axes: Axes) -> float | None:
    """The one value that all curves have; None if they have several."""
    values = {float(value) for line in axes.lines for value in np.asarray(line.get_ydata())}
    return values.pop() if len(values) == 1 else None


def _short(value: float, _place: int) -> str:
    """
    >>> _short(12500.0, 0), _short(2.5e6, 0), _short(0.001, 0)
    ('12.5k', '2.5M', '0.001')
    """
    for unit, size in (("M", 1e6), ("k", 1e4)):
        if abs(value) >= size:
            return f"{value / (1e6 if unit == 'M' else 1e3):g}{unit}"
    return f"{value:.4g}"


# -- from matplotlib's SVG to one that is styled from outside ------------------------------------------------


def _plain(markup: str, chart: Chart) -> str:
    root = ElementTree.fromstring(markup)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{_SVG}metadata" or child.tag == f"{_SVG}style":
                parent.remove(child)
    for element in root.iter():
        _restyle(element, chart.key)
    first, last = chart.rounds or (0, 0)
    label = f"{chart.title}: {', '.join(chart.latest)}, over rounds {first} to {last}"
    picture = ElementTree.Element(
        "svg", {"viewBox": f"0 0 {WIDTH:g} {HEIGHT:g}", "role": "img", "aria-label": label}
    )
    picture.extend(list(root))
    for element in picture.iter():
        element.tag = element.tag.removeprefix(_SVG)
    return ElementTree.tostring(picture, encoding="unicode")


def _restyle(element: ElementTree.Element, key: str) -> None:
    """Without styles and names of no use; ids are those of this chart alone."""
    style = dict(_declarations(element.attrib.pop("style", "")))
    if element.tag == f"{_SVG}text" and "text-anchor" in style:
        element.set("text-anchor", style["text-anchor"])
    if style.get("fill") == "none":
        element.set("fill", "none")
    name = element.attrib.pop("id", "")
    if name.startswith(("curve-", "grid", "axis")):
        element.set("class", name)
    elif element.tag in (f"{_SVG}path", f"{_SVG}clipPath") and name:
        element.set("id", f"{key}-{name}")
    for attribute in ("clip-path", _LINK):
        if attribute in element.attrib:
            value = element.attrib.pop(attribute).replace("#", f"#{key}-")
            element.set("href" if attribute == _LINK else attribute, value)


def _declarations(style: str) -> Iterator[tuple[str, str]]:
    for declaration in filter(None, style.split(";")):
        name, _, value = declaration.partition(":")
        yield name.strip(), value.strip()
