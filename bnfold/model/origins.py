"""Where constants came from: the names they had in the model before any fold.

A certificate says of every new tensor what it was made of. For that, the tensors of a model
and the constants it computes are marked with their names when a fold begins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import onnx_ir as ir

from bnfold.expression import Held, Named
from bnfold.model.constants import Constant
from bnfold.model.graphs import graphs_of

_ORIGIN: Final = "bnfold.origin"


def mark_origins(model: ir.Model) -> None:
    """Mark every stored tensor with the name of the value that holds it.

    Names that occur in several graphs of the model say nothing, and are left out.
    """
    stored = list(_stored(model))
    counts = Counter(name for name, _ in stored)
    for name, tensor in stored:
        if counts[name] == 1 and not isinstance(tensor, ir.LazyTensor):
            tensor.meta[_ORIGIN] = name


def _stored(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    for graph in graphs_of(model.graph):
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                yield name, value.const_value
        for node in graph:
            attribute = node.attributes.get("value")
            if node.op_type == "Constant" and attribute and not attribute.is_ref():
                yield node.outputs[0].name or "", attribute.as_tensor()


def origin_of(base: object) -> object:
    """Return the origin of what an expression is based on; None where it is unknown."""
    if isinstance(base, ir.TensorProtocol):
        name = base.meta.get(_ORIGIN)
        return None if name is None else Named(name)
    return getattr(base, "origin", None)


def named(constant: Constant, name: str | None) -> Constant:
    """Return a computed constant that knows the name of its value."""
    base = constant.expression.base
    if not name or not isinstance(base, Held) or base.origin is not None:
        return constant
    held = Held(base.array, Named(name))
    return replace(constant, expression=replace(constant.expression, base=held))
