"""How much a model stores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx_ir as ir

from bnfold.model.graphs import graphs_of

SPARSE: Final = "bnfold.sparse"
"""Marks a tensor that is stored sparse: it is written out when it is read."""


def stored_elements(model: ir.Model) -> int:
    """Return how many elements the tensors of a model have together, those of functions too.

    Tensors that share the bytes of a file do not count twice: a file of 10 MB does not become
    10 GB by naming it a thousand times.
    """
    inside = 0
    outside: defaultdict[str, list[ir.ExternalTensor]] = defaultdict(list)
    for tensor in _tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            outside[tensor.path].append(tensor)
        elif SPARSE not in tensor.meta:
            inside += tensor.size
    return inside + sum(_elements_of(path, tensors) for path, tensors in outside.items())


def _elements_of(path: str, tensors: list[ir.ExternalTensor]) -> int:
    """Bound the elements of a file by its size, in the narrowest type that is read from it."""
    named = sum(tensor.size for tensor in tensors)
    try:
        size_bytes = Path(path).stat().st_size
    except OSError:
        return named
    bits = min(int(tensor.dtype.bitwidth) for tensor in tensors)
    return min(named, size_bytes * 8 // bits)


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    graphs = [*graphs_of(model.graph)]
    for function in model.functions.values():
        graphs.extend(graphs_of(function.graph))
    for graph in graphs:
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type is ir.AttributeType.TENSOR and not attribute.is_ref():
                    yield attribute.as_tensor()
