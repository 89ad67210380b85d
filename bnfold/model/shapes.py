"""Types and shapes of all values, from onnx's own shape inference, kept beside the model.

They are kept in a table, not written into the values: a fold must not add or refine the type
information of a model that it otherwise leaves alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir

from bnfold import process
from bnfold.model.graphs import subgraphs_of
from bnfold.model.inference import RefusedError, inferred
from bnfold.model.written_out import why_not_written_out

Dim = int | str | None
Dims = tuple[Dim, ...]
_SMALL_ELEMENTS: Final = 256
_NOT_INFERRED: Final = frozenset({"GroupNormalization", "MeanVarianceNormalization"})
"""Operators whose result onnx (1.23) infers no shape for, though it has that of the input."""
_UNKNOWN: Final = onnx.TensorProto.UNDEFINED
_NO_PROPAGATION: Final = "bnfold.no_propagation"
"""Marks a model whose sizes cannot be computed: onnx holds a message for every element of a
list that may be one of sizes, of a hundred million of them too."""
_LONG: Final = 1 << 16
_MAKE_LISTS: Final = frozenset(
    {"ConstantOfShape", "Expand", "Range", "Tile", "Pad", "RandomNormal", "RandomUniform"}
    | {"HannWindow", "HammingWindow", "BlackmanWindow", "Resize", "Upsample"}
)
_SPARED_BYTES: Final = 1 << 27
_SPARED_TIMES: Final = 64


class ShapeTable:
    """Element type and dimensions of values; a dimension is a number, a symbol or unknown."""

    def __init__(self, model: ir.Model) -> None:
        self._dims: dict[ir.Value, Dims] = {}
        self._dtypes: dict[ir.Value, ir.DataType] = {}
        self._read_graph(model.graph, _infer(model))

    def dims(self, value: ir.Value) -> Dims | None:
        """Return the dimensions of a value, or None when even the rank is unknown."""
        if value.const_value is not None and value.producer() is None:
            return tuple(int(size) for size in value.const_value.shape.numpy())
        known = self._dims.get(value)
        return _declared_dims(value) if known is None else known

    def knows_more(self, other: ShapeTable, value: ir.Value) -> bool:
        """Return whether a size of a value is a number here, and not in another table."""
        here, there = self.dims(value), other.dims(value)
        if here is None or there is None:
            return here is not there and here is not None
        pairs = zip(here, there, strict=False)
        return any(isinstance(a, int) and not isinstance(b, int) for a, b in pairs)

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """Return the element type of a value, or None when it is unknown."""
        if value.const_value is not None and value.producer() is None:
            return value.const_value.dtype
        return self._dtypes.get(value, value.dtype)

    def move(self, value: ir.Value, other: ir.Value) -> None:
        """Give ``other`` the dimensions of ``value``, whose own are unknown from now on."""
        dims = self._dims.pop(value, None)
        if dims is None:
            self._dims.pop(other, None)
        else:
            self._dims[other] = dims

    def _read_graph(self, graph: ir.Graph, proto: onnx.GraphProto | None) -> None:
        if proto is None:
            return
        infos = {
            info.name: info
            for info in itertools.chain(proto.value_info, proto.output, proto.input)
        }
        for value in _values_of(graph):
            info = infos.get(value.name or "")
            if info is not None and info.type.HasField("tensor_type"):
                self._read_value(value, info.type.tensor_type)
        for node, node_proto in zip(graph, proto.node, strict=True):
            inner = [sub for attr in node_proto.attribute for sub in _attribute_graphs(attr)]
            for subgraph, sub_proto in zip(subgraphs_of(node), inner, strict=True):
                self._read_graph(subgraph, sub_proto)

    def _read_value(self, value: ir.Value, tensor: onnx.TypeProto.Tensor) -> None:
        if tensor.elem_type != _UNKNOWN:
            self._dtypes[value] = ir.DataType(tensor.elem_type)
        if tensor.HasField("shape"):
            self._dims[value] = tuple(_dim_of(dim) for dim in tensor.shape.dim)


def _values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _attribute_graphs(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def _dim_of(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return dim.dim_param or None


def _declared_dims(value: ir.Value) -> Dims | None:
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def _infer(model: ir.Model) -> onnx.GraphProto | None:
    """Infer shapes on a copy without the large weights; None when onnx gives up."""
    proto = light_proto(model)
    if _NO_PROPAGATION not in model.graph.meta and not _has_long_lists(proto):
        try:
            most_bytes = _SPARED_BYTES + _SPARED_TIMES * proto.ByteSize()
            with process.spared(most_bytes):
                return _inferred(proto, data_prop=True, most_bytes=most_bytes)
        except MemoryError:
            model.graph.meta[_NO_PROPAGATION] = True
    return _inferred(proto, data_prop=False)


def _has_long_lists(proto: onnx.ModelProto) -> bool:
    """Return whether sizes should not be propagated, where no limit of memory would stop it.

    Whatever makes lists is looked at without propagation first, in a process of others.
    """
    if process.own() is not None or not any(
        node.op_type in _MAKE_LISTS for node in proto.graph.node
    ):
        return False
    found = _inferred(proto, data_prop=False)
    infos = () if found is None else (*found.value_info, *found.output)
    shapes = (info.type.tensor_type.shape.dim for info in infos)
    return any(len(dims) == 1 and dims[0].dim_value > _LONG for dims in shapes)


def light_proto(model: ir.Model) -> onnx.ModelProto:
    """Return a message with all of a model but its large weights, which are inputs."""
    proto = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    if not why_not_written_out(model):
        for function in model.functions.values():
            ir.serde.serialize_function_into(proto.functions.add(), function)
    _write_light_graph(proto.graph, model.graph)
    return proto


def _inferred(
    proto: onnx.ModelProto, *, data_prop: bool, most_bytes: int = 0
) -> onnx.GraphProto | None:
    try:
        return inferred(proto, data_prop=data_prop, most_bytes=most_bytes)
    except RefusedError:
        return None


def _write_light_graph(proto: onnx.GraphProto, graph: ir.Graph) -> None:
    """Write the graph with large weights as inputs: shapes are all that inference needs."""
    proto.name = graph.name or "graph"
    for value in graph.inputs:
        ir.serde.serialize_value_into(proto.input.add(), value)
    for value in graph.initializers.values():
        _write_light_initializer(proto, value)
    for node in graph:
        _write_light_node(proto, node)
        for output in node.outputs:
            if output.name and output.type is not None and not output.is_graph_output():
                ir.serde.serialize_value_into(proto.value_info.add(), output)
    for value in graph.outputs:
        ir.serde.serialize_value_into(proto.output.add(), value)


def _write_light_initializer(proto: onnx.GraphProto, value: ir.Value) -> None:
    tensor = value.const_value
    if tensor is None:
        return
    if tensor.size <= _SMALL_ELEMENTS:
        ir.serde.serialize_tensor_into(proto.initializer.add(), tensor)
    elif not value.is_graph_input():
        dims = [int(size) for size in tensor.shape.numpy()]
        name = value.name or ""
        proto.input.append(onnx.helper.make_tensor_value_info(name, int(tensor.dtype), dims))


def _write_light_node(proto: onnx.GraphProto, node: ir.Node) -> None:
    if node.op_type in _NOT_INFERRED and node.domain == "":
        # Identity has the shape and the type of the result.
        names = [node.inputs[0].name if node.inputs[0] is not None else ""]
        proto.node.add(op_type="Identity", input=names, output=[node.outputs[0].name])
        return
    attribute = node.attributes.get("value") if node.op_type == "Constant" else None
    tensor = None if attribute is None or attribute.is_ref() else attribute.value
    written = ir.serde.serialize_node(node) if tensor is None else None
    text = tensor is not None and tensor.dtype == ir.DataType.STRING
    if tensor is not None and not text and tensor.size > _SMALL_ELEMENTS:
        node_proto = proto.node.add(op_type="ConstantOfShape", output=[node.outputs[0].name])
        dims = np.array(tensor.shape.numpy(), np.int64)
        name = f"{node.outputs[0].name}/bnfold_shape"
        proto.initializer.append(onnx.numpy_helper.from_array(dims, name))
        node_proto.input.append(name)
        value = onnx.TensorProto(data_type=int(tensor.dtype), dims=[1])
        value.raw_data = b"\0" * max(1, tensor.dtype.bitwidth // 8)
        node_proto.attribute.append(onnx.helper.make_attribute("value", value))
        return
    proto.node.append(written if written is not None else ir.serde.serialize_node(node))
