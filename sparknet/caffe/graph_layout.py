"""Where the nodes of a directed graph go on paper: ranks by the longest way from a source, few crossings.

The steps are Sugiyama's: rank the nodes, put a bend where an edge passes a rank, order each rank by the
mean place of its neighbours, and place it there with room between. (Methods for Visual Understanding of
Hierarchical System Structures, 1981.)
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 6  # up and down in turn; the order hardly changes after that

Edge = tuple[str, str]
Place = tuple[float, float]
Vertex = Hashable  # a node's name, or (edge, rank) for the bend of an edge


@dataclass(frozen=True, kw_only=True)
class Layout:
    """``places`` are node centres, ``routes`` the points of each edge.

    (along a rank, across the ranks), from 0.
    """

    places: dict[str, Place]
    routes: list[tuple[Edge, list[Place]]]
    width: float
    height: float


def lay_out(
    sizes: Mapping[str, Place], edges: Sequence[Edge], *, gap: float = 12.0, rank_gap: float = 22.0
) -> Layout:
    """Place nodes of the given sizes, which come in an order in which no edge leads back."""
    ranks = _ranks(sizes, edges)
    chains = [_chain(edge, ranks) for edge in edges]
    rows = _rows(ranks, chains)
    neighbours = _neighbours(chains)
    for sweep in range(SWEEPS):
        _order(rows, neighbours[sweep % 2], downwards=sweep % 2 == 0)
    widths = {vertex: sizes[vertex][0] if isinstance(vertex, str) else 0.0 for row in rows for vertex in row}
    along = _along(rows, neighbours[0], widths, gap)
    heights = [max((sizes[v][1] for v in row if isinstance(v, str)), default=0.0) for row in rows]
    across = _across(heights, rank_gap)
    centres = {vertex: (along[vertex], across[rank]) for rank, row in enumerate(rows) for vertex in row}
    return Layout(
        places={name: centres[name] for name in sizes},
        routes=[(edge, [centres[v] for v in chain]) for edge, chain in zip(edges, chains, strict=True)],
        width=max((along[v] + widths[v] / 2 for v in along), default=0.0),
        height=across[-1] + heights[-1] / 2 if rows else 0.0,
    )


def _ranks(nodes: Iterable[str], edges: Iterable[Edge]) -> dict[str, int]:
    sources: dict[str, list[str]] = {}
    for source, target in edges:
        sources.setdefault(target, []).append(source)
    ranks: dict[str, int] = {}
    for node in nodes:
        ranks[node] = 1 + max((ranks[source] for source in sources.get(node, [])), default=-1)
    return ranks


def _chain(edge: Edge, ranks: Mapping[str, int]) -> list[Vertex]:
    """The edge's ends and, between them, one bend in each rank it passes."""
    source, target = edge
    bends = [(edge, rank) for rank in range(ranks[source] + 1, ranks[target])]
    return [source, *bends, target]


def _rows(ranks: Mapping[str, int], chains: Iterable[Sequence[Vertex]]) -> list[list[Vertex]]:
    rows: list[list[Vertex]] = [[] for _ in range(max(ranks.values(), default=-1) + 1)]
    for node, rank in ranks.items():
        rows[rank].append(node)
    for source, *bends, _ in chains:
        for rank, bend in enumerate(bends, start=ranks[str(source)] + 1):
            rows[rank].append(bend)
    return rows


def _neighbours(chains: Iterable[Sequence[Vertex]]) -> tuple[dict[Vertex, list[Vertex]], ...]:
    """For every vertex, those above it and those below it."""
    above: dict[Vertex, list[Vertex]] = {}
    below: dict[Vertex, list[Vertex]] = {}
    for chain in chains:
        for upper, lower in pairwise(chain):
            above.setdefault(lower, []).append(upper)
            below.setdefault(upper, []).append(lower)
    return above, below


def _order(
    rows: list[list[Vertex]], neighbours: Mapping[Vertex, Sequence[Vertex]], *, downwards: bool
) -> None:
    """Sort every row by the mean position of its vertices' neighbours in the row before it."""
    position: dict[Vertex, float] = {}
    for row in rows if downwards else reversed(rows):
        here = {vertex: float(index) for index, vertex in enumerate(row)}

        def key(vertex: Vertex, here: Mapping[Vertex, float] = here) -> float:
            return _mean([position[v] for v in neighbours.get(vertex, ())], here[vertex])

        row.sort(key=key)
        position.update({vertex: float(index) for index, vertex in enumerate(row)})


def _along(
    rows: Iterable[Sequence[Vertex]],
    above: Mapping[Vertex, Sequence[Vertex]],
    widths: Mapping[Vertex, float],
    gap: float,
) -> dict[Vertex, float]:
    """A coordinate for every vertex: under those above it, as far as the row's order and the gaps allow."""
    along: dict[Vertex, float] = {}
    for row in rows:
        wanted = [_mean([along[v] for v in above.get(vertex, ())], 0.0) for vertex in row]
        placed: list[float] = []
        for vertex, wish in zip(row, wanted, strict=True):
            last = row[len(placed) - 1] if placed else None
            least = placed[-1] + (widths[last] + widths[vertex]) / 2 + gap if last is not None else wish
            placed.append(max(wish, least))
        shift = _mean([wish - place for wish, place in zip(wanted, placed, strict=True)], 0.0)
        along.update({vertex: place + shift for vertex, place in zip(row, placed, strict=True)})
    left = min((along[v] - widths[v] / 2 for v in along), default=0.0)
    return {vertex: place - left for vertex, place in along.items()}


def _across(heights: Sequence[float], gap: float) -> list[float]:
    centres: list[float] = []
    top = 0.0
    for height in heights:
        centres.append(top + height / 2)
        top += height + gap
    return centres


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
