"""Faults in the graph: attributes, inputs, nodes left out, constants of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, shape_inference

from tests.mutants.subject import Mutant, Subject, readers

_SKIPPED: Final = ("group", "perm", "kernel_shape", "to")


def wiring_faults(subject: Subject, rng: np.random.Generator) -> Iterator[Mutant]:
    """Yield mutants with a change that no folder of constants makes by arithmetic."""
    for place, node in enumerate(subject.folded.graph.node):
        for attribute in node.attribute:
            yield from _attribute_faults(subject, place, attribute)
    yield from _rewired(subject, rng)
    yield from _bypassed(subject)
    yield from _reordered(subject)
    for name in subject.untouched():
        if readers(subject.folded, name):
            factor = 1.0 + rng.choice([0.01, 0.1, -2.0])
            array = subject.after[name].astype(np.float64) * factor
            yield subject.with_tensors("constant that was not folded", {name: array})


def _copy(subject: Subject) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(subject.folded)
    return model


def _attribute_faults(
    subject: Subject, place: int, attribute: onnx.AttributeProto
) -> Iterator[Mutant]:
    if attribute.name in _SKIPPED:
        return
    value = helper.get_attribute_value(attribute)
    for kind, other in _others(attribute.name, value):
        model = _copy(subject)
        node = model.graph.node[place]
        slot = [a.name for a in node.attribute].index(attribute.name)
        node.attribute[slot].CopyFrom(helper.make_attribute(attribute.name, other))
        yield Mutant(model, kind, (node.name,))


def _others(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield wrong values of an attribute, and what to call the mistake."""
    if name == "pads" and len(value) == 4:
        top, left, bottom, right = value
        yield "padding", [bottom + 1, left, top - 1, right] if top else [1, left, 0, right]
        yield "padding", [0] * 4 if any(value) else [1] * 4
    elif name == "strides":
        yield "strides", [3 - size if size < 3 else 1 for size in value]
    elif name == "axis":
        yield "axis attribute", 0 if value else 1
        yield "axis attribute", value - 1
    elif isinstance(value, float):
        yield f"{name} attribute", value * 1.05
        yield f"{name} attribute", -value if name != "epsilon" else value * 3
    elif name in ("transB", "transA"):
        yield "transposition", 1 - value


def _rewired(subject: Subject, rng: np.random.Generator) -> Iterator[Mutant]:
    """Wire an input to another value of the same shape that is computed before."""
    shapes = _shapes(subject.folded)
    seen = [value.name for value in subject.folded.graph.input]
    for place, node in enumerate(subject.folded.graph.node):
        for slot, read in enumerate(node.input):
            others = [name for name in seen if name != read and shapes.get(name)]
            others = [name for name in others if shapes[name] == shapes.get(read)]
            if read in seen and others:
                model = _copy(subject)
                model.graph.node[place].input[slot] = str(rng.choice(others))
                yield Mutant(model, "input wired elsewhere", (node.name,))
        seen.extend(node.output)


def _bypassed(subject: Subject) -> Iterator[Mutant]:
    """Leave out a node whose result has the shape of its first input that is computed."""
    shapes = _shapes(subject.folded)
    results = {value.name for value in subject.folded.graph.output}
    constants = {tensor.name for tensor in subject.folded.graph.initializer}
    for place, node in enumerate(subject.folded.graph.node):
        source = next((name for name in node.input if name not in constants), "")
        result = node.output[0]
        if result in results or not source or shapes.get(source) != shapes.get(result):
            continue
        model = _copy(subject)
        behind = [reader.name for reader, _ in readers(model, result)]
        for reader, slot in readers(model, result):
            reader.input[slot] = source
        del model.graph.node[place]
        yield Mutant(model, "node bypassed", (node.name, *behind))


def _reordered(subject: Subject) -> Iterator[Mutant]:
    """Join branches, or multiply matrices, in another order."""
    for place, node in enumerate(subject.folded.graph.node):
        if node.op_type in ("Concat", "Sub", "Div", "MatMul") and len(node.input) > 1:
            model = _copy(subject)
            changed = model.graph.node[place]
            order = list(reversed(changed.input))
            del changed.input[:]
            changed.input.extend(order)
            yield Mutant(model, "inputs in another order", (node.name,))


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[object, ...]]:
    graph = shape_inference.infer_shapes(model).graph
    return {
        value.name: tuple(d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
