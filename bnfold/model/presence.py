"""Put back what a round trip through onnx_ir loses but a reader of the bytes would miss.

onnx_ir does not write fields that are present and empty, trailing empty outputs, the domain
``ai.onnx``, value_info of graph outputs, or sparse initializers; and it writes value_info of
initializers that had none. Nothing here brings back a content that somebody changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx
import onnx_ir as ir
from google.protobuf.message import Message

from bnfold.model.graphs import graphs_of
from bnfold.model.structure import subgraphs

PROTO: Final = "bnfold.proto"
_HEADER: Final = "bnfold.model_proto"

_MODEL_FIELDS: Final = (
    "producer_name",
    "producer_version",
    "domain",
    "model_version",
    "doc_string",
)
_NODE_FIELDS: Final = ("name", "domain", "doc_string", "overload")
_GRAPH_FIELDS: Final = ("name", "doc_string")
_ATTRIBUTE_FIELDS: Final = ("doc_string", "ref_attr_name")


def remember(model: ir.Model, proto: onnx.ModelProto) -> None:
    """Note beside each graph and node which message it was read from; nothing is copied."""
    model.graph.meta[_HEADER] = proto
    for graph, graph_proto in paired(model, proto):
        graph.meta[PROTO] = graph_proto
        for node, node_proto in zip(graph, graph_proto.node, strict=True):
            node.meta[PROTO] = node_proto


def put_back(proto: onnx.ModelProto, model: ir.Model) -> None:
    """Make ``proto``, just serialised from ``model``, as like what was read as it can be."""
    header = model.graph.meta.get(_HEADER)
    if header is not None:
        _restore(proto, header, _MODEL_FIELDS)
        _restore_order(proto, header)
        _restore_opsets(proto, header)
        proto.training_info.extend(header.training_info)
    for graph, graph_proto in paired(model, proto):
        old = graph.meta.get(PROTO)
        if old is None:
            continue
        _restore(graph_proto, old, _GRAPH_FIELDS)
        _restore_order(graph_proto, old)
        _restore_value_info(graph_proto, old)
        for tensor in _tensors(graph_proto):
            _undouble(tensor)
        _restore_sparse(graph, graph_proto, old)
        for node, node_proto in zip(graph, graph_proto.node, strict=True):
            _restore_node(node_proto, node.meta.get(PROTO))


def paired(
    model: ir.Model, proto: onnx.ModelProto
) -> Iterator[tuple[ir.Graph, onnx.GraphProto]]:
    """Yield each graph of a model with its message, depth first."""
    yield from zip(graphs_of(model.graph), _graphs(proto.graph), strict=True)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for subgraph in subgraphs(node):
            yield from _graphs(subgraph)


def _restore(new: Message, old: Message, fields: tuple[str, ...]) -> None:
    """Set the fields that ``old`` has, empty, and ``new`` has not."""
    for name in fields:
        if old.HasField(name) and not new.HasField(name) and not getattr(old, name):
            setattr(new, name, getattr(old, name))


_Described = onnx.ModelProto | onnx.GraphProto | onnx.NodeProto


def _restore_order(new: _Described, old: _Described) -> None:
    """Give unchanged metadata_props their order; onnx_ir sorts them."""
    entries = {entry.key: entry.value for entry in old.metadata_props}
    if len(entries) < 2 or entries != {entry.key: entry.value for entry in new.metadata_props}:
        return
    del new.metadata_props[:]
    new.metadata_props.extend(old.metadata_props)


def _restore_opsets(new: onnx.ModelProto, old: onnx.ModelProto) -> None:
    """Leave the default domain unsaid where it was unsaid."""
    unsaid = {entry.domain for entry in old.opset_import if not entry.HasField("domain")}
    for entry in new.opset_import:
        if not entry.domain and "" in unsaid:
            entry.ClearField("domain")


def _restore_node(new: onnx.NodeProto, old: onnx.NodeProto | None) -> None:
    if old is None:
        return
    _restore(new, old, _NODE_FIELDS)
    _restore_order(new, old)
    if old.domain == "ai.onnx" and not new.domain:
        new.domain = old.domain
    if new.op_type == old.op_type:
        missing = list(old.output)[len(new.output) :]
        if not any(missing):
            new.output.extend(missing)
    for attribute, old_attribute in zip(new.attribute, old.attribute, strict=False):
        if attribute.name == old_attribute.name:
            _restore(attribute, old_attribute, _ATTRIBUTE_FIELDS)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def _undouble(tensor: onnx.TensorProto) -> None:
    """Keep the first entry of each key: onnx_ir appends metadata_props to a full copy."""
    keys = [entry.key for entry in tensor.metadata_props]
    if len(set(keys)) < len(keys):
        for place in reversed(range(len(keys))):
            if keys[place] in keys[:place]:
                del tensor.metadata_props[place]


def _restore_value_info(new: onnx.GraphProto, old: onnx.GraphProto) -> None:
    """Keep the entries that were read, in their order, minus the values that are gone."""
    present = {info.name: info for info in new.value_info}
    interface = {info.name for info in (*new.input, *new.output)}
    kept: list[onnx.ValueInfoProto] = []
    for info in old.value_info:
        if info.name in present:
            _restore(present[info.name], info, ("doc_string",))
            kept.append(present[info.name])
        elif info.name in interface:
            kept.append(info)
    if kept != list(new.value_info):
        copies = [onnx.ValueInfoProto.FromString(info.SerializeToString()) for info in kept]
        del new.value_info[:]
        new.value_info.extend(copies)
    for field in ("input", "output"):
        for entry, old_entry in zip(getattr(new, field), getattr(old, field), strict=False):
            _restore(entry, old_entry, ("doc_string",))


def _restore_sparse(graph: ir.Graph, new: onnx.GraphProto, old: onnx.GraphProto) -> None:
    if not old.sparse_initializer:
        return
    read = {value.name for node in graph.all_nodes() for value in node.inputs if value}
    read.update(value.name for value in graph.outputs)
    dense = {tensor.name for tensor in new.initializer}
    new.sparse_initializer.extend(
        sparse
        for sparse in old.sparse_initializer
        if sparse.values.name in read and sparse.values.name not in dense
    )
