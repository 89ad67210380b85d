"""Is this protobuf a graph at all? The faults that no later part could name as clearly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Final

import onnx
import onnx_ir as ir

from bnfold.errors import ModelError

_DEFAULT_DOMAINS: Final = ("", "ai.onnx")
_TYPES: Final = frozenset(ir.DataType) - {ir.DataType.UNDEFINED, ir.DataType.STRING}


def check_structure(proto: onnx.ModelProto, where: str) -> None:
    """Refuse a model whose graph is empty, ill-named or cyclic, or lacks an opset import.

    An unsorted graph is no fault: the reader sorts it.

    Raises:
        ModelError: Naming the fault, the node or tensor, and what to do.
    """
    if not proto.HasField("graph") or not proto.graph.node:
        raise ModelError(
            "the model has no graph to fold",
            where=where,
            why="its graph is missing or has no nodes",
            remedy="export the model again; a file of zero bytes is an interrupted download",
        )
    _check_opset_imports(proto, where)
    for tensor in _all_tensors(proto.graph):
        _check_length(tensor, where)
    _check_names(proto.graph, frozenset(), where)


def _check_opset_imports(proto: onnx.ModelProto, where: str) -> None:
    imported = {_canonical(entry.domain) for entry in proto.opset_import}
    for node in _all_nodes(proto.graph):
        if _canonical(node.domain) not in imported:
            domain = node.domain or "ai.onnx"
            raise ModelError(
                f"the model imports no operator set for domain {domain!r}",
                where=f"{where}: node {node.name or node.op_type!r}",
                why="without an opset import the meaning of its operators is undefined",
                remedy="add it to model.opset_import, or export the model again",
            )


def _all_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in _all_nodes(graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from attribute.g.initializer


def _check_length(tensor: onnx.TensorProto, where: str) -> None:
    """Check that raw bytes are as many as the shape and type ask for."""
    if not tensor.HasField("raw_data") or tensor.data_type not in _TYPES:
        return
    bits = ir.DataType(tensor.data_type).bitwidth
    needed_bytes = (math.prod(tensor.dims) * bits + 7) // 8
    if len(tensor.raw_data) != needed_bytes:
        raise ModelError(
            "a tensor has more or fewer bytes than its shape",
            where=f"{where}: tensor {tensor.name!r} of shape {list(tensor.dims)}",
            why=f"it holds {len(tensor.raw_data)} bytes, {needed_bytes} are needed",
            remedy="export the model again",
        )


def _canonical(domain: str) -> str:
    return "" if domain in _DEFAULT_DOMAINS else domain


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for subgraph in subgraphs(node):
            yield from _all_nodes(subgraph)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs in a node's attributes, e.g. the branches of an If."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _check_names(graph: onnx.GraphProto, outer: frozenset[str], where: str) -> None:
    """Check that every name is written once and that every name read is written somewhere."""
    written = _written_names(graph, where)
    known = outer | written
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                raise ModelError(
                    f"a node reads {name!r}, which nothing writes",
                    where=f"{where}: node {node.name or node.op_type!r}",
                    why="it is no input, no initializer and no node's output",
                    remedy="export the model again, or add the missing tensor",
                )
        for subgraph in subgraphs(node):
            _check_names(subgraph, known, where)
    for output in graph.output:
        if output.name not in written:
            raise ModelError(
                f"the graph output {output.name!r} is not written in its graph",
                where=f"{where}: graph {graph.name!r}",
                why="no node, input or initializer of that graph has the name",
                remedy="export the model again; return outer values through an Identity node",
            )
    _check_acyclic(graph, where)


def _written_names(graph: onnx.GraphProto, where: str) -> frozenset[str]:
    inputs = _once((entry.name for entry in graph.input), "graph inputs", where)
    weights = _once(_initializer_names(graph), "initializers", where)
    outputs = _once(
        (name for node in graph.node for name in node.output if name), "node outputs", where
    )
    for clash in sorted(outputs & (inputs | weights)):
        raise _duplicate(clash, "a node output and a graph input or initializer", where)
    return inputs | weights | outputs


def _initializer_names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)


def _once(names: Iterable[str], kind: str, where: str) -> frozenset[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise _duplicate(name, f"two {kind}", where)
        seen.add(name)
    return frozenset(seen)


def _duplicate(name: str, holders: str, where: str) -> ModelError:
    return ModelError(
        f"the name {name!r} is used twice",
        where=where,
        why=f"it is the name of {holders}; ONNX requires single assignment",
        remedy="rename one of them, or export the model again",
    )


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names a node reads, through its subgraphs too."""
    yield from (name for name in node.input if name)
    for subgraph in subgraphs(node):
        own = {name for inner in subgraph.node for name in inner.output}
        own.update(entry.name for entry in subgraph.input)
        own.update(_initializer_names(subgraph))
        for inner in subgraph.node:
            yield from (name for name in _reads(inner) if name not in own)
        yield from (entry.name for entry in subgraph.output if entry.name not in own)


def _check_acyclic(graph: onnx.GraphProto, where: str) -> None:
    """Peel off nodes whose inputs are ready (Kahn 1962); what remains stands on a cycle."""
    writer = {
        name: place for place, node in enumerate(graph.node) for name in node.output if name
    }
    readers: list[list[int]] = [[] for _ in graph.node]
    waits = [0] * len(graph.node)
    for place, node in enumerate(graph.node):
        for source in {writer[name] for name in _reads(node) if name in writer}:
            readers[source].append(place)
            waits[place] += 1
    ready = [place for place, count in enumerate(waits) if not count]
    done = 0
    while ready:
        done += 1
        for reader in readers[ready.pop()]:
            waits[reader] -= 1
            if not waits[reader]:
                ready.append(reader)
    if done < len(graph.node):
        stuck = next(node for node, count in zip(graph.node, waits, strict=True) if count)
        raise ModelError(
            "the graph has a cycle",
            where=f"{where}: node {stuck.name or stuck.op_type!r}",
            why="its input depends on its own output",
            remedy="export the model again; ONNX graphs are acyclic",
        )
