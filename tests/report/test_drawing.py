"""Drawings of a fold: well-formed, apart, readable, and safe whatever the names are."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bnfold.folding.api import fold_unchecked
from bnfold.folding.pictures import pictures_of
from bnfold.model.io import opened
from bnfold.report.drawing import DRAWING_CSS, draw, draw_pair
from bnfold.report.layout import lay_out
from tests.battery import parallel
from tests.battery.cases import ALL
from tests.small import conv_bn
from tests.strategies import models

SVG = "{http://www.w3.org/2000/svg}"
ROLES = ["site", "absorbed", "passed", "changed", "gone", "beside"]
CASES = [case for case in ALL if case.name.split("/")[0] in ("paths", "parallel", "control")]


def pictured(model) -> list[dict[str, Any]]:
    """The pictures of a fold as a report holds them: as JSON."""
    result = fold_unchecked(model)
    pictures = pictures_of(opened(model), result.model, result.report.steps)
    return [json.loads(json.dumps(dataclasses.asdict(picture))) for picture in pictures]


def patch_of(boxes: list[tuple[str, str, str]], wires: list[tuple], hidden: int = 0):
    """A patch of (name, kind, role) and (source, target, value, shape, through)."""
    return {
        "boxes": [{"name": n, "kind": k, "role": r} for n, k, r in boxes],
        "wires": [
            {"source": a, "target": b, "value": v, "shape": s, "through": t}
            for a, b, v, s, t in wires
        ],
        "hidden": hidden,
    }


@st.composite
def patches(draw_from):
    """Any patch: forward wires between few boxes, with names that would break markup."""
    names = st.text(max_size=40)
    boxes = draw_from(
        st.lists(st.tuples(names, names, st.sampled_from(ROLES)), min_size=1, max_size=12)
    )
    ends = st.integers(0, len(boxes) - 1)
    pairs = st.one_of(
        st.tuples(ends, ends).filter(lambda pair: pair[0] < pair[1]),
        st.tuples(st.none(), ends),
        st.tuples(ends, st.none()),
    )
    hops = st.sampled_from([0, 0, 0, 1, 17])
    shapes = st.sampled_from(["", "N×64×56×56"])
    some = draw_from(st.lists(st.tuples(pairs, names, shapes, hops), max_size=20))
    return patch_of(boxes, [(*pair, name, shape, far) for pair, name, shape, far in some])


def rectangles(svg: ET.Element) -> list[tuple[float, float, float, float]]:
    found = []
    for group in svg.iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        x, y, width, height = (float(rect.get(k)) for k in ("x", "y", "width", "height"))
        found.append((x, y, x + width, y + height))
    return found


def points(path: ET.Element) -> Iterator[tuple[float, float]]:
    """Points on a path, close together."""
    x = y = 0.0
    for letter, rest in re.findall(r"([MLVCQZ])([^MLVCQZ]*)", path.get("d")):
        numbers = [float(n) for n in rest.split()]
        if letter == "V":
            corners = [(x, y), (x, numbers[0])]
        elif letter in "MLCQ":
            corners = [(x, y), *zip(numbers[::2], numbers[1::2], strict=True)]
        else:
            return
        if letter != "M":
            for turn in range(33):
                yield bezier(corners, turn / 32)
        x, y = corners[-1]


def bezier(corners, t: float) -> tuple[float, float]:
    while len(corners) > 1:
        corners = [
            (a + t * (c - a), b + t * (d - b))
            for (a, b), (c, d) in itertools.pairwise(corners)
        ]
    return corners[0]


def check(patch: dict[str, Any]) -> ET.Element:
    """A drawing is XML with a box for each node, none over another, no line under one."""
    svg = ET.fromstring(str(draw(patch)))
    assert svg.tag == f"{SVG}svg"
    assert svg.get("role") == "img"
    assert svg.get("aria-label")
    left, top, width, height = map(float, svg.get("viewBox").split())
    boxes = rectangles(svg)
    assert len(boxes) == len(patch["boxes"])
    for a, b, c, d in boxes:
        assert left <= a < c <= left + width
        assert top <= b < d <= top + height
    for (a, b, c, d), (e, f, g, h) in itertools.combinations(boxes, 2):
        assert c <= e or g <= a or d <= f or h <= b, "two boxes overlap"
    for path in svg.iter(f"{SVG}path"):
        if path.get("class").split()[0] not in ("wire", "move"):
            continue
        for x, y in points(path):
            assert left <= x <= left + width
            assert top <= y <= top + height
            for a, b, c, d in boxes:
                inside = a + 0.5 < x < c - 0.5 and b + 0.5 < y < d - 0.5
                assert not inside, f"a {path.get('class')} runs over a box"
    return svg


def texts(svg: ET.Element) -> list[str]:
    return [text.text or "" for text in svg.iter(f"{SVG}text")]


def classes(svg: ET.Element) -> list[str]:
    return [group.get("class") for group in svg.iter(f"{SVG}g")]


def test_a_batch_norm_that_moves_into_a_convolution():
    (picture,) = pictured(conv_bn())
    svg = check(picture["before"])
    assert svg.get("aria-label") == "BatchNormalization bn moves into Conv conv"
    assert sorted(classes(svg)) == ["box absorbed", "box beside", "box site"]
    assert {"Conv", "conv", "BatchNormalization", "bn", "Relu", "relu"} <= set(texts(svg))
    assert "N×3×8×8" in texts(svg)
    (move,) = [path for path in svg.iter(f"{SVG}path") if path.get("class") == "move"]
    assert float(svg.get("width")) <= 340
    assert not [p for p in check(picture["after"]).iter() if p.get("class") == "move"]
    boxes = dict(zip(classes(svg), rectangles(svg), strict=True))
    start, *_, end = points(move)
    assert boxes["box site"][1] < start[1] < boxes["box site"][3]
    assert boxes["box absorbed"][1] < end[1] < boxes["box absorbed"][3]


def test_data_flows_downwards():
    for picture in pictured(parallel.repvgg()):
        for side in ("before", "after"):
            boxes = rectangles(check(picture[side]))
            for wire in picture[side]["wires"]:
                if None not in (wire["source"], wire["target"]):
                    assert boxes[wire["source"]][3] < boxes[wire["target"]][1]


def test_text_is_large_enough_and_never_scaled_up():
    sizes = [
        float(size)
        for size in re.findall(r"\.fold-graph [^{]*{[^}]*font-size: (\d+)px", DRAWING_CSS)
    ]
    assert min(sizes) >= 11
    svg = ET.fromstring(str(draw(pictured(conv_bn())[0]["before"])))
    assert [svg.get("width"), svg.get("height")] == svg.get("viewBox").split()[2:]


def test_colours_are_left_to_the_page():
    for picture in pictured(parallel.repvgg()):
        drawn = str(draw_pair(picture))
        assert not re.search(r"style=|fill=|stroke=|#[0-9a-f]{3}|<script", drawn)
    assert not re.search(r"#[0-9a-f]{3}|rgb|hsl", DRAWING_CSS)


def test_every_class_that_is_drawn_has_a_rule():
    used = set()
    for case in CASES[::5]:
        for picture in pictured(case.build()):
            used |= set(
                " ".join(re.findall(r'class="([^"]*)"', str(draw_pair(picture)))).split()
            )
    used -= {"beside"}  # it is drawn as any box
    assert "move" in used
    assert {name for name in used if not re.search(rf"\.{name}\b", DRAWING_CSS)} == set()


def test_long_names_are_cut_in_the_middle_and_told_in_full():
    name = "/model/encoder/layer.11/attention/output/dense/MatMul"
    svg = check(patch_of([(name, "MatMul", "absorbed")], []))
    assert name not in texts(svg)
    (short,) = [text for text in texts(svg) if "…" in text]
    assert name.startswith(short.split("…")[0])
    assert name.endswith(short.split("…")[1])
    assert name in next(svg.iter(f"{SVG}title")).text


def test_a_line_through_hidden_nodes_says_how_many():
    boxes = [("a", "Conv", "absorbed"), ("b", "Mul", "site")]
    svg = check(patch_of(boxes, [(0, 1, "v", "", 21)], hidden=21))
    assert "⋮ 21 nodes" in texts(svg)
    assert [p for p in svg.iter() if p.get("class") == "wire far"]


def test_a_value_that_several_nodes_read_comes_from_one_place():
    boxes = [(name, "Conv", "absorbed") for name in "abc"]
    svg = check(patch_of(boxes, [(None, n, "x", "N×3", 0) for n in range(3)]))
    assert texts(svg).count("x") == 1


def test_a_site_that_stays_is_told_from_one_that_leaves():
    staying = {"norm"}
    patch = patch_of([("norm", "LayerNormalization", "site"), ("mul", "Mul", "site")], [])
    svg = ET.fromstring(str(draw(patch, staying=staying)))
    assert sorted(classes(svg)) == ["box site", "box site stays"]


def test_a_pair_shows_both_sides_and_what_their_boxes_mean():
    (picture,) = pictured(conv_bn())
    pair = ET.fromstring(str(draw_pair(picture)))
    labels = [svg.get("aria-label") for svg in pair.iter(f"{SVG}svg")]
    assert labels == [
        "Before: BatchNormalization bn moves into Conv conv",
        "After: Conv conv, then Relu relu",
    ]
    assert [entry.get("class") for entry in pair.iter("li")] == ["site", "absorbed"]
    assert [caption.text for caption in pair.iter("figcaption")] == ["before", "after"]


def test_where_nothing_is_left_the_pair_says_so():
    (picture,) = pictured(conv_bn())
    picture["after"] = patch_of([], [])
    captions = [c.text for c in ET.fromstring(str(draw_pair(picture))).iter("figcaption")]
    assert captions == ["before", "after: nothing is left"]


def test_names_cannot_break_out():
    evil = '"><script>alert(1)</script>&\x00'
    patch = patch_of(
        [(evil, evil, "site"), ("b", "Conv", "absorbed")], [(0, 1, evil, evil, 0)]
    )
    assert "<script" not in str(draw(patch))
    pair = draw_pair({"before": patch, "after": patch, "step": 0, "pattern": evil})
    assert "<script" not in pair
    ET.fromstring(str(pair))


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_folds_of_the_battery(case):
    for picture in pictured(case.build()):
        check(picture["before"])
        check(picture["after"])


@given(models())
def test_folds_of_drawn_models(model):
    for picture in pictured(model):
        check(picture["before"])
        check(picture["after"])
        ET.fromstring(str(draw_pair(picture)))


@given(patches())
@example(patch_of([("", "", "site"), ("", "", "absorbed")], [(None, 1, "", "", 0)]))
def test_any_patch(patch):
    check(patch)


@given(
    st.integers(1, 10).flatmap(
        lambda count: st.lists(
            st.tuples(st.integers(0, count), st.integers(0, count)).filter(
                lambda edge: edge[0] < edge[1]
            ),
            max_size=20,
        )
    )
)
def test_long_edges_have_a_place_in_every_layer_they_cross(edges):
    layout = lay_out([(80.0, 40.0)] * 11, edges, 30.0)
    for edge, path in zip(edges, layout.bends, strict=True):
        assert (path[0], path[-1]) == edge
        layers = [layout.vertices[place].layer for place in path]
        assert layers == list(range(layers[0], layers[-1] + 1))
    for layer in layout.layers:
        placed = [layout.vertices[place] for place in layer]
        for left, right in itertools.pairwise(placed):
            assert left.x + left.width / 2 < right.x - right.width / 2
