"""What a size that is followed by symbols comes to when these get numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bnfold.model.facts import Facts
from bnfold.model.io import from_proto
from bnfold.model.sizes import Size, Symbols

Binding = Mapping[str, int]


def worth(size: Size, symbols: Symbols, binding: Binding) -> int | None:
    """The number of a size; None where it hangs on a size that was not followed."""
    total = 0
    for monomial, factor in size.terms:
        parts = [_of_symbol(index, symbols, binding) for index in monomial]
        if None in parts:
            return None
        total += factor * math.prod(part for part in parts if part is not None)
    return total


def _of_symbol(index: int, symbols: Symbols, binding: Binding) -> int | None:
    meaning = next(key for key, known in symbols._index.items() if known == index)
    if isinstance(meaning, str):
        return binding.get(meaning)
    if not isinstance(meaning[0], str):
        return None
    operator, left, right = meaning
    a = worth(left, symbols, binding)
    b = right if isinstance(right, int) else worth(right, symbols, binding)
    if a is None or b is None:
        return None
    if operator in ("quotient", "Div"):
        return a // b
    return {"Mod": a % b if b else 0, "Max": max(a, b), "Min": min(a, b)}[operator]


def open_model(nodes, stored, dims, opset=17, output="y", kind=TensorProto.FLOAT):
    """A model of one input x with open sizes, and one result of unknown shape."""
    graph = helper.make_graph(
        nodes,
        "open",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info(output, kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def facts_of(model: onnx.ModelProto):
    """The facts of a model, and its values by name."""
    read = from_proto(model)
    values = {value.name: value for value in read.graph.inputs}
    values |= {value.name: value for node in read.graph for value in node.outputs}
    return Facts(read), values


def bound(dims, binding: Binding) -> list[int]:
    """The sizes of an input once open ones have numbers."""
    return [binding[dim] if isinstance(dim, str) else dim for dim in dims]
