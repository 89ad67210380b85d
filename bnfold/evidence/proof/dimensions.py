"""Sizes of the values of a model, for what it is given."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.proof.draws import Dims
from bnfold.evidence.proof.sides import CannotEvaluateError, Segment, Side
from bnfold.evidence.reference import widen
from bnfold.evidence.reference.schedule import schedule
from bnfold.model.facts import Facts

Array = NDArray[Any]

_WINDOWS: Final = frozenset({"Conv", "MaxPool", "AveragePool", "LpPool", "ConvInteger"})

_MOST_S: Final = 20.0
"""The model is run once where inference does not tell its sizes, for so long at most."""


_Known = tuple[Dims, bool]
"""Dimensions, and whether the elements are floats."""


class Dimensions(NamedTuple):
    """What is known of the sizes of a model's values.

    Attributes:
        dims: Of every floating value whose rank is known, by name.
        is_short: Whether an axis is empty, or a window has no place: the inputs are too small.
    """

    dims: dict[str, Dims]
    is_short: bool


def dimensions(side: Side, inputs: Mapping[str, Array], deadline: float) -> Dimensions:
    """Return the dimensions of every floating value whose rank is known.

    They are those that the model has for ``inputs``: with symbols bound, shape inference sees
    through most of what computes with shapes. Where it does not, the model is run: a value of
    unknown size cannot be drawn, and every segment behind it grows.

    Args:
        side: The model.
        inputs: Arrays for its inputs.
        deadline: By the monotonic clock; what is not known by then stays unknown.
    """
    known = _inferred(side.model, inputs, as_declared=False)
    results = {value.name for node in side.position for value in node.outputs if value.name}
    stopped: list[ir.Node] = []
    if not results <= known.keys():
        until = min(deadline, time.monotonic() + _MOST_S)
        fits = _are_as_declared(side.model, inputs)
        declared = _inferred(side.model, inputs, as_declared=True) if fits else {}
        known = {**declared, **dict(_seen(side, inputs, until, stopped)), **known}
    sizes = (dim for dims, _ in known.values() for dim in dims)
    is_empty = any(isinstance(dim, int) and dim <= 0 for dim in sizes)
    is_short = is_empty or any(node.op_type in _WINDOWS for node in stopped)
    is_short = is_short or any(_has_no_place(node, known) for node in side.position)
    return Dimensions({n: dims for n, (dims, is_float) in known.items() if is_float}, is_short)


def _has_no_place(node: ir.Node, known: Mapping[str, _Known]) -> bool:
    """Return whether inference gave up on a window, though it knows what goes in."""
    if node.op_type not in _WINDOWS or node.inputs[0] is None:
        return False
    before, after = (known.get(v.name or "") for v in (node.inputs[0], node.outputs[0]))
    if before is None or after is None:
        return False
    is_known = [all(isinstance(dim, int) for dim in dims) for dims, _ in (before, after)]
    return is_known == [True, False]


def discrete_values(
    side: Side, inputs: Mapping[str, Array], whole: Collection[str] = ()
) -> Iterator[str]:
    """Yield the floating values that hang on integers and booleans alone.

    Such as a mask that was cast to float: 0 and 1, and penalties made of these. Drawn as any
    numbers they would be what they never are, and hide whatever is added to them.

    Args:
        side: The model.
        inputs: Arrays for its inputs.
        whole: Inputs that are whole numbers whatever their type: ids may be floats.
    """
    found = {name for name, array in inputs.items() if array.dtype.kind in "biu"}
    found.update(whole)
    yield from whole
    for node in side.position:
        reads = [value for value in side.reads(node) if not side.is_constant(value)]
        if (
            reads
            and node.op_type in _KEEP_DISCRETE
            and all(value.name in found for value in reads)
        ):
            names = [value.name for value in node.outputs if value.name]
            found.update(names)
            yield from names


# fmt: off
_KEEP_DISCRETE: Final = frozenset({
    "Cast", "CastLike", "Identity", "Neg", "Abs", "Not", "Add", "Sub", "Mul", "Div", "Min",
    "Max", "Clip", "Sign", "Where", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "And", "Or", "Xor", "Mod", "Reshape", "Squeeze", "Unsqueeze", "Expand",
    "Transpose", "Slice", "Concat", "Tile", "CumSum",
})
# fmt: on
"""What few numbers go into, few come out of; an embedding (Gather) is none of these."""


def _inferred(
    model: ir.Model, inputs: Mapping[str, Array], *, as_declared: bool
) -> dict[str, _Known]:
    bound = _bound(model, inputs, as_declared=as_declared)
    facts = Facts(bound)
    known: dict[str, _Known] = {}
    results = (value for node in bound.graph for value in node.outputs)
    for value in (*bound.graph.inputs, *results):
        kind, dims = facts.dtype(value), facts.shape(value)
        if value.name and kind is not None and dims is not None and _is_tensor(value):
            known[value.name] = dims, kind.is_floating_point()
    return known


def _is_tensor(value: ir.Value) -> bool:
    """Return whether a value may be drawn as an array: a sequence has a shape of its items."""
    return value.type is None or isinstance(value.type, ir.TensorType)


def _bound(model: ir.Model, inputs: Mapping[str, Array], *, as_declared: bool) -> ir.Model:
    """Return a copy of the model with the sizes of these inputs.

    What a model declares of values in between stays if there is nothing to bind, or if it is
    wanted: a model that was traced at batch 2, and whose batch was opened behind that, still
    says 2 everywhere.
    """
    try:
        bound = model.clone()
    except (RuntimeError, ValueError):
        return model
    shapes = [value.shape for value in bound.graph.inputs if value.name in inputs]
    static = all(shape is not None and shape.is_static() for shape in shapes)
    stays = as_declared or (static and _are_as_declared(model, inputs))
    for value in bound.graph.inputs:
        given = inputs.get(value.name or "")
        if given is not None:
            value.shape = ir.Shape(given.shape)
    for node in bound.graph:
        for value in node.outputs:
            if value.shape is not None and not (stays and value.shape.is_static()):
                value.shape = None
    return bound


def _are_as_declared(model: ir.Model, inputs: Mapping[str, Array]) -> bool:
    """Return whether arrays have the sizes that are declared: not those of an empty axis."""
    shapes = {value.name: value.shape for value in model.graph.inputs}
    return all(
        size == dim
        for name, array in inputs.items()
        for size, dim in zip(array.shape, shapes.get(name) or (), strict=False)
        if isinstance(dim, int)
    )


def _seen(
    side: Side, inputs: Mapping[str, Array], until: float, stopped: list[ir.Node]
) -> Iterator[tuple[str, _Known]]:
    """Run the model and yield the sizes of its values; note the nodes that give none.

    What hangs on these, or on inputs that no numbers are drawn for, has none either.
    """
    feeds = {name: widen(array) for name, array in inputs.items()}
    held: dict[ir.Value, Array] = {}
    missing = _not_fed(side, feeds)
    for node, dying in schedule(side.model.graph, ()):
        if time.monotonic() > until:
            return
        if missing.isdisjoint(side.reads(node)):
            held.update(_results(side, node, feeds, held, stopped))
        if stopped[-1:] == [node] or not missing.isdisjoint(side.reads(node)):
            missing.update(node.outputs)
        for value in node.outputs:
            found = held.get(value)
            if isinstance(found, np.ndarray):  # no sequence, nothing absent
                yield value.name or "", (found.shape, found.dtype == np.float64)
        for value in dying:
            held.pop(value, None)


def _not_fed(side: Side, feeds: Mapping[str, Array]) -> set[ir.Value]:
    inputs = side.model.graph.inputs
    return {one for one in inputs if one.name not in feeds and not side.is_constant(one)}


def _results(
    side: Side,
    node: ir.Node,
    feeds: Mapping[str, Array],
    held: Mapping[ir.Value, Array],
    stopped: list[ir.Node],
) -> dict[ir.Value, Array]:
    """Return what a node gives, nothing of a constant one; note one that gives nothing."""
    if all(side.is_constant(value) for value in node.outputs):
        return {}
    segments = [Segment(value, (node,), ()) for value in node.outputs if value.name]
    read = {value: held[value] for value in side.reads(node) if value in held}
    try:
        return {one.result: side.evaluate_any_kind(one, feeds, known=read) for one in segments}
    except CannotEvaluateError:
        stopped.append(node)
        return {}
