"""Lay a patch out and draw its parts as elements of an SVG."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bnfold.records import Role
from bnfold.report.layout import Layout, Point, Vertex, lay_out
from bnfold.report.moves import ROOM_FOR_TIP, Line, lines_of_moves
from bnfold.safe_text import for_html

_GAP: Final = 38.0
_MARGIN: Final = 4.0
_BOX_HEIGHT: Final = 42.0
_NARROWEST: Final = 76.0
_LONGEST_NAME: Final = 20
_LONGEST_KIND: Final = 21
_LONGEST_LABEL: Final = 16
_BOLDER: Final = 1.3
"""How much wider the operator is set than the rest: 13 px bold against 11 px."""
_LINE: Final = 14.0
_STUB: Final = 24.0
_ROUND: Final = 14.0
_WIDTHS: Final = {**dict.fromkeys("fijlrtI.,:/| ", 4.2), **dict.fromkeys("mwMW×…⋮", 10.0)}

WORDS: Final = {
    Role.SITE: "leaves",
    Role.ABSORBED: "takes its map",
    Role.PASSED: "lets the map through",
    Role.CHANGED: "rewritten",
    Role.GONE: "leaves too",
}
"""What the roles mean, in a few words."""
STAYS: Final = "gives its map away"
"""What a site does that is still there after the fold."""


@dataclass(frozen=True, slots=True)
class _Port:
    """A value that comes from outside, with the boxes it goes to."""

    lines: tuple[str, ...]
    targets: tuple[int, ...]
    is_far: bool

    def size(self) -> Point:
        """Return the room for its lines of text."""
        width = max((_text_width(line) for line in self.lines), default=0.0)
        return max(width, 10.0), _LINE * len(self.lines)


@dataclass(frozen=True, slots=True)
class Canvas:
    """A patch that is laid out: ports first, then boxes, then bends.

    Attributes:
        patch: What is drawn.
        ports: The values from outside.
        inner: The wires between two boxes.
        layout: Where everything stands.
    """

    patch: Mapping[str, Any]
    ports: tuple[_Port, ...]
    inner: tuple[Mapping[str, Any], ...]
    layout: Layout

    @classmethod
    def of(cls, patch: Mapping[str, Any]) -> Canvas:
        """Lay a patch out."""
        ports = _ports(patch["wires"])
        inner = tuple(
            wire
            for wire in patch["wires"]
            if wire["source"] is not None
            and wire["target"] is not None
            and wire["source"] < wire["target"]
        )
        first = len(ports)
        sizes = [port.size() for port in ports] + [_box_size(box) for box in patch["boxes"]]
        edges = [(p, first + t) for p, port in enumerate(ports) for t in port.targets]
        edges += [(first + wire["source"], first + wire["target"]) for wire in inner]
        return cls(patch, ports, inner, lay_out(sizes, edges, _GAP))

    def box(self, index: int) -> Vertex:
        """Return where a box stands."""
        return self.layout.vertices[len(self.ports) + index]

    def frame(self) -> tuple[float, float, float, float]:
        """Return left, top, width and height of the drawing."""
        vertices = self.layout.vertices
        right = max((v.x + v.width / 2 for v in vertices), default=0.0)
        bottom = max((v.y + v.height for v in vertices), default=0.0)
        for wire in self._leaving():
            vertex = self.box(wire["source"])
            bottom = max(bottom, vertex.y + vertex.height + _STUB)
            right = max(right, vertex.x + 8 + _widest(_lines(wire)))
        for wire in self.inner:
            right = max(right, self.box(wire["source"]).x + 8 + _text_width(_side(wire)))
        left = 0.0
        for points in self._moves():
            left = min(left, *(x for x, _ in points))
            right = max(right, *(x for x, _ in points))
        return (
            left - _MARGIN,
            -_MARGIN,
            right - left + 2 * _MARGIN,
            bottom + 2 * _MARGIN,
        )

    # ------------------------------------------------------------------------- boxes

    def boxes(self, staying: Collection[str]) -> list[str]:
        """Return the boxes and the texts of the ports."""
        parts = [
            _texts(port.lines, self.layout.vertices[place], "label")
            for place, port in enumerate(self.ports)
        ]
        for place, box in enumerate(self.patch["boxes"]):
            stays = box["role"] == Role.SITE and box["name"] in staying
            parts.append(_box(box, self.box(place), "stays" if stays else ""))
        return parts

    # ------------------------------------------------------------------------- wires

    def wires(self) -> list[str]:
        """Return the wires, and the shapes of the values that they carry."""
        far = [port.is_far for port in self.ports for _ in port.targets]
        far += [bool(wire.get("through")) for wire in self.inner]
        arrivals = self._arrivals()
        parts: list[str] = []
        for path, is_far, end in zip(self.layout.bends, far, arrivals, strict=True):
            parts.append(self._wire(path, end, "wire far" if is_far else "wire"))
        labelled: set[tuple[int, str]] = set()
        for wire in self.inner:
            key = (wire["source"], wire["value"])
            if key not in labelled and _side(wire):
                labelled.add(key)
                vertex = self.box(wire["source"])
                x, y = vertex.x + 7, vertex.y + vertex.height + _LINE
                parts.append(_text(_side(wire), x, y, "label at-side"))
        return parts + self._stubs()

    def _arrivals(self) -> list[float]:
        """Return where on the upper edge of its end each edge arrives: from left to right."""
        ends: dict[int, list[int]] = {}
        for number, path in enumerate(self.layout.bends):
            ends.setdefault(path[-1], []).append(number)
        found = [0.0] * len(self.layout.bends)
        for vertex, numbers in ends.items():
            place = self.layout.vertices[vertex]
            numbers.sort(key=lambda n: self.layout.vertices[self.layout.bends[n][-2]].x)
            step = min(18.0, (place.width - 12) / len(numbers))
            for turn, number in enumerate(numbers):
                found[number] = place.x + (turn - (len(numbers) - 1) / 2) * step
        return found

    def _wire(self, path: Sequence[int], end: float, css: str) -> str:
        """Draw an edge: curves between layers, straight lines through them."""
        vertices = self.layout.vertices
        start = vertices[path[0]]
        x, y = start.x, start.y + start.height
        parts = [f"M{number(x)} {number(y)}"]
        for upper, lower in itertools.pairwise(path):
            vertex = vertices[lower]
            floor = self._floor(vertices[upper].layer)
            goal = end if lower == path[-1] else vertex.x
            top = vertex.y - (6 if lower == path[-1] else 0)
            middle = (floor + top) / 2
            parts.append(f"V{number(floor)}")
            curve = ((x, middle), (goal, middle), (goal, top))
            parts.append("C" + " ".join(f"{number(a)} {number(b)}" for a, b in curve))
            if vertex.height and lower != path[-1]:
                parts.append(f"V{number(vertex.y + vertex.height)}")
            x = goal
        line = f'<path class="{css}" d="{"".join(parts)}"/>'
        return line + _tip((end, vertices[path[-1]].y), (0.0, 1.0), "tip")

    def _floor(self, layer: int) -> float:
        """Return the lower edge of a layer."""
        placed = (self.layout.vertices[number] for number in self.layout.layers[layer])
        return max(vertex.y + vertex.height for vertex in placed)

    def _leaving(self) -> list[Mapping[str, Any]]:
        return [
            wire
            for wire in self.patch["wires"]
            if wire["target"] is None and wire["source"] is not None
        ]

    def _stubs(self) -> list[str]:
        """Draw what leaves: below a box that ends here, else at its right corner."""
        inside = {wire["source"] for wire in self.inner}
        parts: list[str] = []
        used: dict[int, int] = {}
        for wire in self._leaving():
            source = wire["source"]
            vertex = self.box(source)
            turn = used[source] = used.get(source, -1) + 1
            ends_here = source not in inside and turn == 0
            x = vertex.x if ends_here else vertex.x + vertex.width / 2 - 12 - 12 * turn
            y = vertex.y + vertex.height
            css = "wire far" if wire.get("through") else "wire"
            end = y + (_STUB if ends_here else _STUB - 6)
            line = f"M{number(x)} {number(y)}V{number(end - 6)}"
            parts.append(f'<path class="{css}" d="{line}"/>')
            parts.append(_tip((x, end), (0.0, 1.0), "tip"))
            if ends_here:
                lines = " ".join(_lines(wire))
                parts.append(_text(lines, x + 8, y + _LINE + 2, "label at-side"))
        return parts

    # ------------------------------------------------------------------------- moves

    def moves(self) -> list[str]:
        """Draw where maps went."""
        parts: list[str] = []
        for line in self._moves():
            (x0, y0), (x, y) = line[-2:]
            length = abs(x - x0) + abs(y - y0) or 1.0
            way = ((x - x0) / length, (y - y0) / length)
            parts.append(f'<path class="move" d="{_rounded(line)}"/>')
            end = (x + ROOM_FOR_TIP * way[0], y + ROOM_FOR_TIP * way[1])
            parts.append(_tip(end, way, "move-tip"))
        return parts

    def _moves(self) -> list[Line]:
        vertices, first = self.layout.vertices, len(self.ports)
        return lines_of_moves(self.patch["boxes"], self.inner, vertices, first, _GAP)


def _rounded(corners: Sequence[Point]) -> str:
    """Return a path of horizontal and vertical lines with rounded corners."""
    parts = [f"M{number(corners[0][0])} {number(corners[0][1])}"]
    for before, corner, after in zip(corners, corners[1:], corners[2:], strict=False):
        (enter, leave) = (_towards(corner, other) for other in (before, after))
        curve = " ".join(f"{number(x)} {number(y)}" for x, y in (corner, leave))
        parts.append(f"L{number(enter[0])} {number(enter[1])}Q{curve}")
    parts.append(f"L{number(corners[-1][0])} {number(corners[-1][1])}")
    return "".join(parts)


def _towards(corner: Point, other: Point) -> Point:
    """Return the point where a rounded corner begins, on the way to another one."""
    (x, y), (u, v) = corner, other
    length = abs(u - x) + abs(v - y)
    share = min(_ROUND, length / 2) / length if length else 0.0
    return x + share * (u - x), y + share * (v - y)


def _ports(wires: Sequence[Mapping[str, Any]]) -> tuple[_Port, ...]:
    """Collect the values from outside: one that several boxes read comes from one place."""
    targets: dict[tuple[str, int], list[int]] = {}
    texts: dict[tuple[str, int], tuple[str, ...]] = {}
    for number, wire in enumerate(wires):
        if wire["source"] is None and wire["target"] is not None:
            key = (wire["value"], number if wire.get("through") else -1)
            targets.setdefault(key, []).append(wire["target"])
            texts.setdefault(key, _lines(wire))
    return tuple(
        _Port(texts[key], tuple(found), key[1] >= 0) for key, found in targets.items()
    )


def _lines(wire: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is written at a value that comes from outside, or goes there."""
    through = wire.get("through", 0)
    if through:
        return (_more(through),)
    name, shape = _shortened(wire["value"], _LONGEST_LABEL), wire.get("shape", "")
    return tuple(filter(None, (name, _shortened(shape, _LONGEST_LABEL))))


def _side(wire: Mapping[str, Any]) -> str:
    """Return what is written beside a wire between two boxes."""
    through = wire.get("through", 0)
    return _more(through) if through else _shortened(wire.get("shape", ""), _LONGEST_LABEL)


def _more(count: int) -> str:
    return f"⋮ {count} node{'' if count == 1 else 's'}"


def _box_size(box: Mapping[str, Any]) -> Point:
    kind = _text_width(_shortened(box["kind"], _LONGEST_KIND)) * _BOLDER
    name = _text_width(_shortened(box["name"], _LONGEST_NAME))
    return max(_NARROWEST, kind + 20, name + 20), _BOX_HEIGHT


def _box(box: Mapping[str, Any], vertex: Vertex, extra: str) -> str:
    """Draw a node: its operator, and its name below."""
    role = Role(box["role"])
    words = STAYS if extra else WORDS.get(role, "")
    title = f"{box['kind']} {box['name']}" + (f": {words}" if words else "")
    left, top = number(vertex.x - vertex.width / 2), number(vertex.y)
    size = f'width="{number(vertex.width)}" height="{number(vertex.height)}" rx="8"'
    rects = "".join(
        f'<rect{css} x="{left}" y="{top}" {size}/>' for css in ("", ' class="tint"')
    )
    kind = _shortened(box["kind"], _LONGEST_KIND)
    name = _shortened(box["name"], _LONGEST_NAME)
    css = " ".join(filter(None, ("box", role.value, extra)))
    return (
        f'<g class="{css}"><title>{for_html(title)}</title>{rects}'
        f"{_text(kind, vertex.x, vertex.y + 18, 'kind')}"
        f"{_text(name, vertex.x, vertex.y + 33, 'name')}</g>"
    )


def _texts(lines: Sequence[str], vertex: Vertex, css: str) -> str:
    return "".join(
        _text(line, vertex.x, vertex.y + _LINE * (turn + 1) - 3, css)
        for turn, line in enumerate(lines)
    )


def _text(text: str, x: float, y: float, css: str) -> str:
    place = f'x="{number(x)}" y="{number(y)}"'
    return f'<text class="{css}" {place}>{for_html(text)}</text>'


def _tip(point: Point, way: Point, css: str) -> str:
    """Draw an arrow head that ends in a point."""
    (x, y), (dx, dy) = point, way
    back = (x - 7 * dx, y - 7 * dy)
    left, right = (back[0] - 4 * dy, back[1] + 4 * dx), (back[0] + 4 * dy, back[1] - 4 * dx)
    line = "L".join(f"{number(a)} {number(b)}" for a, b in (point, left, right))
    return f'<path class="{css}" d="M{line}Z"/>'


def _shortened(text: str, longest: int) -> str:
    """Take the middle out of a long text: names tell most at their ends."""
    if len(text) <= longest:
        return text
    tail = longest // 2
    return f"{text[: longest - tail - 1]}…{text[-tail:]}"


def _widest(lines: Sequence[str]) -> float:
    return _text_width(" ".join(lines))


def _text_width(text: str) -> float:
    """Return about how wide a text is at 11 px: rather too wide than too narrow."""
    return sum(_WIDTHS.get(c, 8.0 if c.isupper() else 7.0) for c in text)


def number(length: float) -> str:
    """Write a length for SVG, to a tenth of a unit."""
    return f"{length:.1f}".removesuffix(".0")
