"""Faults in the graph: attributes, integers, nodes dropped, doubled and rewired."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.campaign.number_faults import Maker
from benchmarks.campaign.subject import Mutant, Subject

INTEGERS: Final = frozenset({TensorProto.INT64, TensorProto.INT32})
STORED_INTEGERS: Final = frozenset({TensorProto.INT8, TensorProto.UINT8})
_LINEAR: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def _integer(subject: Subject) -> Mutant | None:
    """One entry of an index, shape, end or pad is off by one."""
    name = subject.any_of(
        one.name
        for one in subject.folded.graph.initializer
        if one.data_type in INTEGERS and subject.readers(one.name) and np.prod(one.dims) < 64
    )
    if name is None:
        return None
    array = numpy_helper.to_array(subject.tensor(name)).copy()
    if not array.size:
        return None
    flat = array.reshape(-1)
    flat[int(subject.rng.integers(flat.size))] += int(subject.rng.choice([-1, 1]))
    return subject.with_array("integer constant off by one", name, array)


def _quantised(subject: Subject) -> Mutant | None:
    """A zero point or a stored weight is off by one, or a weight has the wrong sign."""
    name = subject.any_of(
        one.name
        for one in subject.folded.graph.initializer
        if one.data_type in STORED_INTEGERS and subject.readers(one.name)
    )
    if name is None:
        return None
    array = numpy_helper.to_array(subject.tensor(name)).copy()
    if not array.size:
        return None
    flat = array.reshape(-1)
    place = int(subject.rng.integers(flat.size))
    flat[place] = flat[place] + 1 if flat[place] < 100 else flat[place] - 1
    kind = "zero point off by one" if array.size == 1 else "stored integer off by one"
    return subject.with_array(kind, name, array)


def _attribute(subject: Subject) -> Mutant | None:
    model = subject.copy()
    slots = [
        (node, attribute, kind, value)
        for node in model.graph.node
        for attribute in node.attribute
        for kind, value in _others(attribute)
    ]
    found = subject.any_of(slots)
    if found is None:
        return None
    node, attribute, kind, value = found
    attribute.CopyFrom(helper.make_attribute(attribute.name, value))
    return Mutant(model, kind, (node.name,))


def _others(attribute: onnx.AttributeProto) -> Iterator[tuple[str, Any]]:
    """Yield wrong values of an attribute, and what to call the mistake."""
    value, name = helper.get_attribute_value(attribute), attribute.name
    if name in _OTHERS:
        wrong = _OTHERS[name](value)
    elif isinstance(value, float):
        wrong = [value * 1.01, -value] if value else [0.5, 1.0]
    elif isinstance(value, bytes) and value in _OTHER_WORD:
        wrong = [_OTHER_WORD[value]]
    else:
        wrong = []
    yield from ((name, one) for one in wrong if one != value)


def _pads(value: Any) -> list[Any]:
    if not value:
        return []
    shifted = [value[0] + 1, *value[1:-1], value[-1] - 1 if value[-1] else 0]
    return [shifted, [0] * len(value) if any(value) else [1] * len(value)]


def _sizes(value: Any) -> list[Any]:
    return [[value[0] + 1, *value[1:]], [max(one - 1, 1) for one in value]] if value else []


def _flag(value: Any) -> list[Any]:
    return [1 - value]


def _next_to(value: Any) -> list[Any]:
    return [value - 1 if value > 0 else value + 1]


_OTHERS: Final[Mapping[str, Callable[[Any], list[Any]]]] = {
    "pads": _pads,
    "perm": lambda value: [[value[0], *value[:0:-1]]],
    "epsilon": lambda value: [value * 3],
    **dict.fromkeys(("strides", "dilations", "kernel_shape"), _sizes),
    **dict.fromkeys(("transA", "transB", "keepdims", "ceil_mode"), _flag),
    "count_include_pad": _flag,
    **dict.fromkeys(("axis", "group", "num_groups", "blocksize"), _next_to),
}
_OTHER_WORD: Final = {
    b"edge": "reflect",
    b"reflect": "edge",
    b"nearest": "linear",
    b"linear": "nearest",
    b"DCR": "CRD",
    b"CRD": "DCR",
    b"SAME_UPPER": "SAME_LOWER",
    b"SAME_LOWER": "SAME_UPPER",
}


def _no_bias(subject: Subject) -> Mutant | None:
    model = subject.copy()
    node = subject.any_of(
        n
        for n in model.graph.node
        if n.op_type in _LINEAR and len(n.input) == 3 and n.input[2]
    )
    if node is None:
        return None
    del node.input[2]
    return Mutant(model, "bias dropped", (node.name,))


def _bypassed(subject: Subject) -> Mutant | None:
    model = subject.copy()
    ends = {one.name for one in model.graph.output}
    constants = {one.name for one in model.graph.initializer}
    nodes = [
        n
        for n in model.graph.node
        if n.output[0] not in ends
        and len(n.output) == 1
        and any(i not in constants for i in n.input)
    ]
    node = subject.any_of(nodes)
    if node is None:
        return None
    source = next(name for name in node.input if name not in constants)
    behind = subject.readers(node.output[0])
    for other in model.graph.node:
        for slot, name in enumerate(other.input):
            if name == node.output[0]:
                other.input[slot] = source
    model.graph.node.remove(node)
    return Mutant(model, "node dropped", (node.name, *behind))


def _doubled(subject: Subject) -> Mutant | None:
    """An operator is applied twice."""
    model = subject.copy()
    constants = {one.name for one in model.graph.initializer}
    places = [
        p
        for p, n in enumerate(model.graph.node)
        if len(n.output) == 1 and n.input and n.input[0] and n.input[0] not in constants
    ]
    place = subject.any_of(places)
    if place is None:
        return None
    first = model.graph.node[place]
    again = onnx.NodeProto()
    again.CopyFrom(first)
    again.name = f"{first.name}_again"
    again.input[0] = f"{first.output[0]}_once"
    behind = subject.readers(first.output[0])
    first.output[0] = again.input[0]
    model.graph.node.insert(place + 1, again)
    return Mutant(model, "node doubled", (first.name, again.name, *behind))


def _rewired(subject: Subject) -> Mutant | None:
    """An input is another value that was computed before."""
    model = subject.copy()
    constants = {one.name for one in model.graph.initializer}
    seen = [one.name for one in model.graph.input if one.name not in constants]
    slots = []
    for node in model.graph.node:
        slots += [
            (node, slot, list(seen)) for slot, name in enumerate(node.input) if name in seen
        ]
        seen += [name for name in node.output if name]
    found = subject.any_of(slots)
    if found is None:
        return None
    node, slot, values = found
    other = subject.any_of(name for name in values if name != node.input[slot])
    if other is None:
        return None
    node.input[slot] = other
    return Mutant(model, "input wired elsewhere", (node.name,))


def _reordered(subject: Subject) -> Mutant | None:
    model = subject.copy()
    kinds = ("Concat", "Sub", "Div", "MatMul", "Pow")
    node = subject.any_of(
        n for n in model.graph.node if n.op_type in kinds and len(n.input) > 1
    )
    if node is None:
        return None
    order = list(reversed(node.input))
    del node.input[:]
    node.input.extend(order)
    return Mutant(model, "inputs in another order", (node.name,))


def _reshaped(subject: Subject) -> Mutant | None:
    """A constant along one axis stands along another."""
    name = subject.any_of(subject.written)
    if name is None:
        return None
    array = numpy_helper.to_array(subject.tensor(name))
    if array.size < 2 or max(array.shape) != array.size or array.ndim > 4:
        return None
    shape = [1] * max(array.ndim, 2)
    shape[int(subject.rng.integers(len(shape)))] = array.size
    other = array.reshape(shape)
    if other.shape == array.shape:
        return None
    return subject.with_array("wrong broadcast", name, other)


WIRING: Final[dict[str, Maker]] = {
    "integer": _integer,
    "quantised": _quantised,
    "attribute": _attribute,
    "attribute again": _attribute,
    "bias": _no_bias,
    "bypassed": _bypassed,
    "doubled": _doubled,
    "rewired": _rewired,
    "reordered": _reordered,
    "reshaped": _reshaped,
}
