"""Lay a small graph out in layers, from top to bottom: plain geometry.

Every vertex stands one layer below the lowest that it reads (longest path). Edges over several
layers go through points of their own in the layers between, so that none runs under a box.
Layers are ordered by barycentres; positions are the nearest to the neighbours' that the order
and the sizes allow.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

_SWEEPS: Final = 6
_BETWEEN: Final = 14.0
"""Room between two vertices of a layer."""
BEND_WIDTH: Final = 10.0

Point = tuple[float, float]
Edge = tuple[int, int]


@dataclass(slots=True)
class Vertex:
    """A rectangle to be placed.

    Attributes:
        width: Its width.
        height: Its height.
        layer: Its layer; the topmost is 0.
        x: The middle of it.
        y: Its upper edge.
    """

    width: float
    height: float
    layer: int = 0
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything stands.

    Attributes:
        vertices: The vertices that were asked for, then the bends of long edges.
        bends: For each edge the vertices it goes through, both ends included.
        layers: The vertices of each layer from left to right.
    """

    vertices: tuple[Vertex, ...]
    bends: tuple[tuple[int, ...], ...]
    layers: tuple[tuple[int, ...], ...]


@dataclass(slots=True)
class _Board:
    """A graph while it is laid out: edges join neighbouring layers."""

    vertices: list[Vertex]
    above: dict[int, list[int]] = field(default_factory=dict)
    below: dict[int, list[int]] = field(default_factory=dict)
    layers: list[list[int]] = field(default_factory=list)

    def join(self, upper: int, lower: int) -> None:
        """Add an edge from one layer to the next."""
        self.below.setdefault(upper, []).append(lower)
        self.above.setdefault(lower, []).append(upper)


def lay_out(sizes: Sequence[Point], edges: Sequence[Edge], gap: float) -> Layout:
    """Place rectangles in layers.

    Args:
        sizes: Width and height of each.
        edges: From which to which; each goes from a lower index to a higher one.
        gap: Room between two layers.
    """
    board = _Board([Vertex(width, height) for width, height in sizes])
    for number, layer in enumerate(_layers(len(sizes), edges)):
        board.vertices[number].layer = layer
    bends = tuple(_bend(board, edge) for edge in edges)
    count = 1 + max((vertex.layer for vertex in board.vertices), default=-1)
    board.layers = [[] for _ in range(count)]
    for number, vertex in enumerate(board.vertices):
        board.layers[vertex.layer].append(number)
    _order(board)
    _place(board)
    _stack(board, gap)
    return Layout(tuple(board.vertices), bends, tuple(map(tuple, board.layers)))


def _layers(count: int, edges: Iterable[Edge]) -> list[int]:
    """Return layers by the longest path; what reads nothing stands right above a reader."""
    below: dict[int, list[int]] = {}
    above: dict[int, list[int]] = {}
    for source, target in edges:
        below.setdefault(source, []).append(target)
        above.setdefault(target, []).append(source)
    order = _topological(count, above, below)
    layers = [0] * count
    for number in order:
        layers[number] = max((layers[n] + 1 for n in above.get(number, ())), default=0)
    for number in reversed(order):
        if number not in above and number in below:
            layers[number] = min(layers[n] for n in below[number]) - 1
    return layers


def _topological(
    count: int, above: Mapping[int, Sequence[int]], below: Mapping[int, Sequence[int]]
) -> list[int]:
    """Return an order in which edges go forward; what is on a cycle comes last."""
    open_edges = {number: len(above.get(number, ())) for number in range(count)}
    ready = [number for number in range(count) if not open_edges[number]]
    for number in ready:  # grows while it is read
        for lower in below.get(number, ()):
            open_edges[lower] -= 1
            if not open_edges[lower]:
                ready.append(lower)
    return ready


def _bend(board: _Board, edge: Edge) -> tuple[int, ...]:
    """Let an edge go through a vertex of its own in every layer between its ends."""
    source, target = edge
    path = [source]
    for layer in range(board.vertices[source].layer + 1, board.vertices[target].layer):
        board.vertices.append(Vertex(BEND_WIDTH, 0.0, layer))
        path.append(len(board.vertices) - 1)
    path.append(target)
    for upper, lower in itertools.pairwise(path):
        board.join(upper, lower)
    return tuple(path)


def _order(board: _Board) -> None:
    """Order the layers by the barycentres of what the vertices are joined to."""
    rank = {n: float(i) for layer in board.layers for i, n in enumerate(layer)}
    best, fewest = [list(layer) for layer in board.layers], _crossings(board)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        joined = board.above if down else board.below
        for layer in board.layers if down else reversed(board.layers):
            centres = {n: _mean([rank[m] for m in joined.get(n, ())], rank[n]) for n in layer}
            layer.sort(key=centres.__getitem__)
            rank.update({n: float(i) for i, n in enumerate(layer)})
        crossings = _crossings(board)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in board.layers], crossings
    board.layers = best


def _crossings(board: _Board) -> int:
    """Return how many pairs of edges cross."""
    rank = {n: i for layer in board.layers for i, n in enumerate(layer)}
    total = 0
    for layer in board.layers:
        ends = [(rank[n], rank[m]) for n in layer for m in board.below.get(n, ())]
        total += sum(a < c and b > d for a, b in ends for c, d in ends)
    return total


def _mean(numbers: Sequence[float], otherwise: float) -> float:
    return sum(numbers) / len(numbers) if numbers else otherwise


def _place(board: _Board) -> None:
    """Give every vertex its x: near to what it is joined to, in order, without overlap."""
    for layer in board.layers:
        _spread(board, layer, [0.0] * len(layer))
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for layer in board.layers if down else reversed(board.layers):
            joined = board.above if down else board.below
            wanted = [
                _mean([board.vertices[m].x for m in joined.get(n, ())], board.vertices[n].x)
                for n in layer
            ]
            _spread(board, layer, wanted)
    left = min((v.x - v.width / 2 for v in board.vertices), default=0.0)
    for vertex in board.vertices:
        vertex.x -= left


def _spread(board: _Board, layer: Sequence[int], wanted: Sequence[float]) -> None:
    """Place a layer as close to ``wanted`` as order and widths allow (least squares).

    With the widths taken out of the positions this is an isotonic regression: neighbours that
    would overlap are pooled, and their block stands at the mean of what they want.
    """
    offsets: list[float] = []
    for place, number in enumerate(layer):
        if place == 0:
            offsets.append(0.0)
            continue
        widths = board.vertices[layer[place - 1]].width + board.vertices[number].width
        offsets.append(offsets[-1] + widths / 2 + _BETWEEN)
    blocks: list[tuple[float, int]] = []
    for want, offset in zip(wanted, offsets, strict=True):
        mean, size = want - offset, 1
        while blocks and blocks[-1][0] > mean:
            other, count = blocks.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        blocks.append((mean, size))
    means = (mean for mean, size in blocks for _ in range(size))
    for number, mean, offset in zip(layer, means, offsets, strict=True):
        board.vertices[number].x = mean + offset


def _stack(board: _Board, gap: float) -> None:
    """Give every vertex its y; low ones stand in the middle of their layer."""
    top = 0.0
    for layer in board.layers:
        height = max(board.vertices[number].height for number in layer)
        for number in layer:
            vertex = board.vertices[number]
            if number in board.above and number in board.below and not vertex.height:
                vertex.height = height  # a bend runs straight through its layer
            vertex.y = top + (height - vertex.height) / 2
        top += height + gap
