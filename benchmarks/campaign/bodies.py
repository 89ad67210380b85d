"""Bodies of drawn graphs: residuals, gates, joins, branches, loops, functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.campaign.layers import (
    act,
    affine,
    channel_axis,
    conv,
    gemm,
    linear,
    matmul,
    norm,
    some_map,
)
from benchmarks.campaign.moves import Step
from benchmarks.campaign.sketch import Place, Sketch


def _binary(sketch: Sketch, kind: str, one: Place, two: Place) -> Place:
    return Place(sketch.op(kind, [one.name, two.name]), one.shape, one.open)


def keeps_shape(sketch: Sketch, place: Place) -> Place:
    """Append a linear layer whose result has the shape of its input."""
    if place.rank == 2 and 1 not in place.open:
        make = gemm if sketch.chance(0.5) else matmul
        return make(sketch, place, place.shape[1])
    if place.rank == 3 and 2 not in place.open:
        return matmul(sketch, place, place.shape[2])
    if place.rank < 4 or 1 in place.open:
        return place
    kernel = sketch.pick(1, 3)
    rank, channels = place.rank - 2, place.shape[1]
    group = channels if sketch.chance(0.2) else 1
    fixed = {"pads": [kernel // 2] * 2 * rank, "stride": 1, "dilation": 1, "group": group}
    return conv(sketch, place, outputs=channels, kernel=[kernel] * rank, **fixed)


def residual(sketch: Sketch, place: Place) -> Place:
    """A body with a layer and its map, added to what went in."""
    body = some_map(sketch, keeps_shape(sketch, place))
    if sketch.chance(0.5):
        body = some_map(sketch, keeps_shape(sketch, act(sketch, body)))
    short = place
    if sketch.chance(0.4):
        short = some_map(sketch, keeps_shape(sketch, place))
    kind = sketch.pick("Add", "Add", "Add", "Sub", "Sum", "Mean")
    return _binary(sketch, kind, body, short)


def skip(sketch: Sketch, place: Place) -> Place:
    """``x·1 + x`` and its kind: a map that does nothing, or little, beside what it maps."""
    start = act(sketch, place)
    along = [start.shape[1], *[1] * (start.rank - 2)] if 1 not in start.open else []
    kind = sketch.pick("one", "zero", "map")
    if kind == "one":
        mapped = sketch.op("Mul", [start.name, sketch.const(np.ones(along))])
    elif kind == "zero":
        mapped = sketch.op("Add", [start.name, sketch.const(np.zeros(along))])
    else:
        mapped = affine(sketch, start).name
    branch = Place(mapped, start.shape, start.open)
    if sketch.chance(0.5):
        branch = keeps_shape(sketch, branch)
    kinds = ["Add", "Mul"] + (["Max"] if sketch.opset >= 8 else [])
    return _binary(sketch, sketch.pick(*kinds), start, branch)


def gate(sketch: Sketch, place: Place) -> Place:
    """A value times a gate of itself: squeeze and excitation, Swish, GLU."""
    if place.rank == 4 and place.is_fixed and sketch.chance(0.5):
        shape = (*place.shape[:2], 1, 1)
        squeezed = Place(sketch.op("GlobalAveragePool", [place.name]), shape)
        one = conv(sketch, squeezed, kernel=[1, 1], outputs=place.shape[1], group=1, stride=1,
                   pads=[0] * 4, dilation=1)  # fmt: skip
        opened = Place(sketch.op("Sigmoid", [one.name]), shape)
        return some_map(sketch, _binary(sketch, "Mul", place, opened))
    inner = affine(sketch, place) if sketch.chance(0.5) else place
    opened = Place(sketch.op(sketch.pick("Sigmoid", "Tanh"), [inner.name]), place.shape)
    return _binary(sketch, "Mul", place, opened)


def concat(sketch: Sketch, place: Place) -> Place:
    """Branches joined along an axis, a map behind or within."""
    axis = channel_axis(place)
    if axis in place.open:
        return place
    ends = [place]
    for _ in range(sketch.pick(1, 2)):
        end = keeps_shape(sketch, place)
        ends.append(some_map(sketch, end) if sketch.chance(0.6) else act(sketch, end))
    if sketch.chance(0.5):
        ends = ends[1:] if len(ends) > 2 else ends
    width = sum(end.shape[axis] for end in ends)
    shape = (*place.shape[:axis], width, *place.shape[axis + 1 :])
    name = sketch.op("Concat", [end.name for end in ends], axis=axis)
    joined = Place(name, shape, place.open)
    return some_map(sketch, joined) if sketch.chance(0.6) else linear(sketch, joined)


def split(sketch: Sketch, place: Place) -> Place:
    """Two halves that meet again."""
    axis = channel_axis(place)
    if axis in place.open or place.shape[axis] % 2:
        return place
    place = some_map(sketch, place)
    half = place.shape[axis] // 2
    inputs, more = [place.name], {}
    if sketch.opset >= 13:
        inputs.append(sketch.whole(half, half))
    else:
        more = {"split": [half, half]}
    name = sketch.op("Split", inputs, 2, axis=axis, **more)
    shape = (*place.shape[:axis], half, *place.shape[axis + 1 :])
    one, two = Place(name, shape, place.open), Place(f"{name}_1", shape, place.open)
    if sketch.chance(0.5):
        two = some_map(sketch, two)
    if sketch.chance(0.4):
        two = act(sketch, two)
    return _binary(sketch, sketch.pick("Mul", "Add"), one, two)


def rep_vgg(sketch: Sketch, place: Place) -> Place:
    """Parallel convolutions with maps, and the map of the input itself, summed."""
    if place.rank != 4 or 1 in place.open:
        return place
    channels, parts = place.shape[1], []
    for kernel in (3, 1):
        fixed = {"pads": [kernel // 2] * 4, "stride": 1, "dilation": 1, "group": 1}
        part = conv(sketch, place, kernel=[kernel] * 2, outputs=channels, **fixed)
        parts.append(norm(sketch, part))
    if sketch.chance(0.5):
        parts.append(norm(sketch, place))
    whole = parts[0]
    for part in parts[1:]:
        whole = _binary(sketch, "Add", whole, part)
    return act(sketch, whole)


def shared(sketch: Sketch, place: Place) -> Place:
    """Two layers with one weight, a map behind one of them."""
    if place.rank < 2 or place.rank - 1 in place.open:
        return place
    width = place.shape[-1]
    weight = sketch.const(sketch.normal(width, width, scale=(1 / width) ** 0.5), "w")
    one = Place(sketch.op("MatMul", [place.name, weight]), place.shape, place.open)
    two = affine(sketch, one, place.rank - 1)
    again = act(sketch, two)
    other = Place(sketch.op("MatMul", [again.name, weight]), place.shape, place.open)
    return affine(sketch, other, place.rank - 1) if sketch.chance(0.5) else other


def where(sketch: Sketch, place: Place) -> Place:
    """Where between two branches; or Max and Min of them."""
    one = some_map(sketch, keeps_shape(sketch, place))
    two = some_map(sketch, keeps_shape(sketch, place))
    if sketch.opset < 9:
        return _binary(sketch, "Add", one, two)
    zero = sketch.const(0.0)
    condition = sketch.op("Greater", [place.name, zero])
    name = sketch.op("Where", [condition, one.name, two.name])
    return affine(sketch, Place(name, place.shape, place.open))


def branch(sketch: Sketch, place: Place) -> Place:
    """An If whose branches are a layer with a map, and something else."""
    if place.open or sketch.opset < 13:
        return place
    if "flag" not in sketch.feeds:
        sketch.given("flag", [], TensorProto.BOOL)
        sketch.feeds["flag"] = "flag"
    graphs = [_body(sketch, place, [act, keeps_shape, some_map]) for _ in range(2)]
    name = sketch.op("If", ["flag"], then_branch=graphs[0], else_branch=graphs[1])
    result = Place(name, place.shape)
    return some_map(sketch, result) if sketch.chance(0.5) else result


def _body(sketch: Sketch, place: Place, steps: Sequence[Step]) -> onnx.GraphProto:
    """Return steps as a subgraph that reads ``place`` from outside."""
    kept, sketch.nodes = sketch.nodes, []
    try:
        end = place
        for step in steps:
            end = step(sketch, end)
        given = helper.make_tensor_value_info(end.name, sketch.element, [None] * end.rank)
        return helper.make_graph(sketch.nodes, sketch.fresh("body"), [], [given])
    finally:
        sketch.nodes = kept


def loop(sketch: Sketch, place: Place) -> Place:
    """A Loop of fixed length that carries a value through a layer and its map."""
    if place.open or sketch.opset < 13:
        return place
    kept, sketch.nodes = sketch.nodes, []
    names = [sketch.fresh(stem) for stem in ("step", "go", "carried")]
    inner = Place(names[2], place.shape)
    end = act(sketch, some_map(sketch, keeps_shape(sketch, inner)))
    onward = sketch.op("Identity", [names[1]])
    nodes, sketch.nodes = sketch.nodes, kept
    free = [None] * place.rank
    ends = [
        helper.make_tensor_value_info(onward, TensorProto.BOOL, []),
        helper.make_tensor_value_info(end.name, sketch.element, free),
    ]
    body = helper.make_graph(
        nodes, sketch.fresh("body"), _loop_inputs(sketch, names, free), ends
    )
    start = affine(sketch, place) if sketch.chance(0.5) else place
    count = sketch.store(np.array(2, np.int64))
    return Place(sketch.op("Loop", [count, "", start.name], body=body), place.shape)


def _loop_inputs(
    sketch: Sketch, names: Sequence[str], free: Sequence[Any]
) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(names[0], TensorProto.INT64, []),
        helper.make_tensor_value_info(names[1], TensorProto.BOOL, []),
        helper.make_tensor_value_info(names[2], sketch.element, list(free)),
    ]


def function(sketch: Sketch, place: Place) -> Place:
    """A layer and its map within a function of the model, called once or twice."""
    if place.rank < 2 or place.rank - 1 in place.open:
        return place
    width = place.shape[-1]
    name = sketch.fresh("Block")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name=f"{name}_matmul"),
        helper.make_node("Mul", ["p", "s"], ["q"], name=f"{name}_mul"),
        helper.make_node("Add", ["q", "t"], ["r"], name=f"{name}_add"),
        helper.make_node("Relu", ["r"], ["y"], name=f"{name}_relu"),
    ]
    imports = [helper.make_opsetid("", sketch.opset)]
    sketch.functions.append(
        helper.make_function("local", name, ["x", "w", "s", "t"], ["y"], nodes, imports)
    )
    for _ in range(sketch.pick(1, 2)):
        weight = sketch.const(sketch.normal(width, width, scale=(1 / width) ** 0.5), "w")
        maps = [sketch.const(sketch.gains(width)), sketch.const(sketch.normal(width))]
        called = sketch.op(name, [place.name, weight, *maps], domain="local")
        place = Place(called, place.shape, place.open)
    return place


BODIES: Final[tuple[Step, ...]] = (
    *(residual, residual, skip, gate, concat, split, rep_vgg, shared, where),
    *(branch, loop, function),
)
