"""Whether every Slice of a model meets sizes that onnx's shape inference can cut.

`bnfold.model.inference` says which it cannot. A size is found before its Slice is asked about:
Slices are hidden from inference, and shown one after the other, each once the sizes that it
meets are known and depend on none that is hidden still.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import onnx

_HIDDEN: Final = "bnfold.hidden"
"""A domain that onnx has no operators of."""
_MOST_IN_A_ROW: Final = 8
"""Each takes an inference: a child process takes no longer than some of a large model."""
_OF_SIZES: Final = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)

Infer = Callable[[onnx.ModelProto], onnx.GraphProto | None]


def all_positive(
    proto: onnx.ModelProto, slices: Sequence[onnx.NodeProto], infer: Infer
) -> bool:
    """Return whether each Slice certainly meets sizes that are positive or stay open.

    Args:
        proto: The model; it is the same again afterwards.
        slices: All of its Slices, in whatever graph.
        infer: Infers types and shapes as it is to be done afterwards; None if it gives up.
    """
    waiting = [
        node for node in proto.graph.node if node.op_type == "Slice" and not node.domain
    ]
    if len(waiting) < len(slices) or _in_a_row(proto.graph) > _MOST_IN_A_ROW:
        return False
    hide(proto, waiting)
    try:
        while waiting:
            graph = infer(proto)
            if graph is None or not (shown := _reached(proto.graph)):
                return False
            types = _types(graph)
            if not all(_is_positive(types.get(node.input[0])) for node in shown):
                return False
            for node in shown:
                node.domain = ""
            waiting = [node for node in waiting if node.domain]
        return True
    finally:
        for node in slices:
            node.domain = ""
        for one in (proto, *proto.functions):
            del one.opset_import[-1]


def hide(proto: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Let inference go past nodes of a model.

    The version of their domain is given too: where it is not, onnx infers nothing at all.
    """
    for one in (proto, *proto.functions):
        one.opset_import.add(domain=_HIDDEN, version=1)
    for node in nodes:
        node.domain = _HIDDEN


def _in_a_row(graph: onnx.GraphProto) -> int:
    """How many Slices lie one behind the other."""
    depth: dict[str, int] = {}
    for node in graph.node:
        behind = max((depth.get(name, 0) for name in _read(node)), default=0)
        behind += node.op_type == "Slice" and not node.domain
        depth.update(dict.fromkeys(node.output, behind))
    return max(depth.values(), default=0)


def _reached(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the hidden Slices that are behind no other one."""
    found, behind = [], set[str]()
    for node in graph.node:
        is_behind = not behind.isdisjoint(_read(node))
        if node.domain == _HIDDEN and not is_behind:
            found.append(node)
        if node.domain == _HIDDEN or is_behind:
            behind.update(node.output)
    return found


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node reads, and whatever a graph inside of it names."""
    pending = [node]
    while pending:
        one = pending.pop()
        yield from one.input
        for attribute in one.attribute:
            graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for graph in graphs:
                yield from (value.name for value in graph.output)
                pending.extend(graph.node)


def _types(graph: onnx.GraphProto) -> Mapping[str, onnx.TypeProto.Tensor]:
    found = {
        info.name: info.type.tensor_type
        for info in (*graph.input, *graph.value_info, *graph.output)
    }
    for tensor in graph.initializer:
        of = found.setdefault(tensor.name, onnx.TypeProto.Tensor(elem_type=tensor.data_type))
        of.shape.CopyFrom(onnx.TensorShapeProto())
        for size in tensor.dims:
            of.shape.dim.add(dim_value=size)
    return found


def _is_positive(of: onnx.TypeProto.Tensor | None) -> bool:
    """Return whether no size is zero or less; that of a list of sizes is to be known."""
    if of is None or not of.HasField("shape"):
        return False
    dims = of.shape.dim
    if any(dim.HasField("dim_value") and dim.dim_value <= 0 for dim in dims):
        return False
    is_list = len(dims) < 2 and of.elem_type in _OF_SIZES
    return not is_list or all(dim.HasField("dim_value") for dim in dims)
