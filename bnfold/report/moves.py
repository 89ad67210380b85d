"""Where maps went, as lines: from each group of sites to what took them, around the boxes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bnfold.records import Role
from bnfold.report.layout import BEND_WIDTH, Point, Vertex

ROOM_FOR_TIP: Final = 7.0
_BULGE: Final = 20.0
_ASIDE: Final = 16.0

Line = tuple[Point, ...]


def lines_of_moves(
    boxes: Sequence[Mapping[str, Any]],
    wires: Iterable[Mapping[str, Any]],
    vertices: Sequence[Vertex],
    first: int,
    gap: float,
) -> list[Line]:
    """Return corners of lines: to each box that took a map, and from each group of sites.

    Args:
        boxes: The boxes of a patch.
        wires: The wires between them.
        vertices: Where everything stands.
        first: Index of the vertex of the first box.
        gap: Room between two layers.
    """
    places = range(len(boxes))
    takers = [place for place in places if boxes[place]["role"] == Role.ABSORBED]
    sites = [place for place in places if boxes[place]["role"] == Role.SITE]
    found: dict[tuple[int, int], Line] = {}
    for taker in takers:
        found.update(_shortest(sites, [taker], vertices, first, gap))
    started = {site for site, _ in found}
    for group in _groups(sites, wires):
        if started.isdisjoint(group):
            found.update(_shortest(group, takers, vertices, first, gap))
    return list(found.values())


def _groups(sites: Sequence[int], wires: Iterable[Mapping[str, Any]]) -> list[list[int]]:
    """Return the sites in groups that wires join: each group moves as one map."""
    group = {site: [site] for site in sites}
    for wire in wires:
        one, other = group.get(wire["source"]), group.get(wire["target"])
        if one is not None and other is not None and one is not other:
            one.extend(other)
            group.update(dict.fromkeys(other, one))
    return list({id(found): found for found in group.values()}.values())


def _shortest(
    sites: Sequence[int],
    takers: Sequence[int],
    vertices: Sequence[Vertex],
    first: int,
    gap: float,
) -> dict[tuple[int, int], Line]:
    """Return the shortest line that runs over no box, if there is one."""
    lines: dict[tuple[int, int], Line] = {}
    for site, taker in itertools.product(sites, takers):
        ends = vertices[first + site], vertices[first + taker]
        for line in _lines(*ends, vertices, gap):
            if (site, taker) not in lines or _length(line) < _length(lines[site, taker]):
                lines[site, taker] = line
    best = min(lines, key=lambda pair: _length(lines[pair]), default=None)
    return {} if best is None else {best: lines[best]}


def _lines(
    site: Vertex, taker: Vertex, vertices: Sequence[Vertex], gap: float
) -> Iterable[Line]:
    """Yield lines that could be drawn from a site to a taker; the plain ones alone if any."""
    if site.layer == taker.layer:
        return _across(site, taker, vertices)
    sides = [side for side in (1.0, -1.0) if _is_outmost(site, vertices, side)]
    plain = [side for side in sides if _is_outmost(taker, vertices, side)]
    if plain:
        return [_around(site, taker, vertices, side) for side in plain]
    return [_from_between(site, taker, vertices, side, gap) for side in sides]


def _across(site: Vertex, taker: Vertex, vertices: Sequence[Vertex]) -> Iterable[Line]:
    """Yield the straight line between two neighbours in a layer."""
    left, right = sorted((site.x, taker.x))
    if any(v.layer == site.layer and left < v.x < right for v in vertices):
        return
    way = 1.0 if taker.x > site.x else -1.0
    y = site.y + site.height / 2
    end = taker.x - way * (taker.width / 2 + ROOM_FOR_TIP)
    yield ((site.x + way * site.width / 2, y), (end, y))


def _around(site: Vertex, taker: Vertex, vertices: Sequence[Vertex], side: float) -> Line:
    """Return a line past what stands between, into the side of the taker."""
    low, high = sorted((site.layer, taker.layer))
    bend = _beyond((v for v in vertices if low <= v.layer <= high), side)
    start_y, end_y = site.y + site.height / 2, taker.y + taker.height / 2
    start = (site.x + side * site.width / 2, start_y)
    end = (taker.x + side * (taker.width / 2 + ROOM_FOR_TIP), end_y)
    return (start, (bend, start_y), (bend, end_y), end)


def _from_between(
    site: Vertex, taker: Vertex, vertices: Sequence[Vertex], side: float, gap: float
) -> Line:
    """Return a line that reaches a taker among others from below, or from above."""
    upwards = taker.layer < site.layer
    low, high = sorted((site.layer, taker.layer))
    passed = (v for v in vertices if low <= v.layer <= high and v.layer != taker.layer)
    bend = _beyond(passed, side)
    near = [v for v in vertices if v.layer == taker.layer]
    if upwards:
        edge, lane = taker.y + taker.height, max(v.y + v.height for v in near) + gap / 2
    else:
        edge, lane = taker.y, min(v.y for v in near) - gap / 2
    start = (site.x + side * site.width / 2, site.y + site.height / 2)
    x = taker.x + side * min(_ASIDE, taker.width / 4)
    end = (x, edge + (ROOM_FOR_TIP if upwards else -ROOM_FOR_TIP))
    return (start, (bend, start[1]), (bend, lane), (x, lane), end)


def _beyond(vertices: Iterable[Vertex], side: float) -> float:
    return side * (max(side * v.x + v.width / 2 for v in vertices) + _BULGE)


def _is_outmost(vertex: Vertex, vertices: Sequence[Vertex], side: float) -> bool:
    """Return whether no box stands beside a vertex on this side."""
    layer = (v for v in vertices if v.layer == vertex.layer and v.width > BEND_WIDTH)
    return all(side * other.x <= side * vertex.x for other in layer)


def _length(line: Sequence[Point]) -> float:
    return sum(abs(a - c) + abs(b - d) for (a, b), (c, d) in itertools.pairwise(line))
