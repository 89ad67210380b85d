"""Read and write models: the border between protobuf files and onnx_ir graphs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from bnfold.errors import ModelError, UsageError
from bnfold.model.external import bind_external_data, check_external_data
from bnfold.model.graphs import sort_graphs
from bnfold.model.presence import paired, put_back, remember
from bnfold.model.reads import READS, SOURCE, Source, reads_of_model, reads_of_proto
from bnfold.model.structure import check_structure
from bnfold.model.text import check_text

UNSORTED: Final = "bnfold.unsorted"

Openable = str | Path | onnx.ModelProto | ir.Model
"""What stands for a model: a path, a protobuf model or an onnx_ir model."""

logging.getLogger("onnx_ir").setLevel(
    logging.ERROR
)  # its warnings are our errors, said better


def opened(model: Openable, verb: str = "fold") -> ir.Model:
    """Return a model of our own to edit: from a file, or a copy that shares the weights.

    Args:
        model: The model as the user gave it.
        verb: What is to be done with it, for the error.

    Raises:
        ModelError: If it cannot be read or makes no sense.
        UsageError: If it is something else.
    """
    if isinstance(model, str | Path):
        return load(model)
    if isinstance(model, onnx.ModelProto):
        return from_proto(model)
    if isinstance(model, ir.Model):
        return _copied(model)
    raise UsageError(
        f"cannot {verb} a {type(model).__name__}",
        why=f"{verb} takes a path, an onnx.ModelProto or an onnx_ir.Model",
    )


def _copied(model: ir.Model) -> ir.Model:
    """Clone a model; one that onnx_ir cannot clone (unsorted, say) goes through protobuf."""
    reads = tuple(reads_of_model(model))
    try:
        copy = model.clone()
    except (RuntimeError, ValueError):
        copy = from_proto(ir.to_proto(model), where="onnx_ir.Model")
    copy.graph.meta[READS] = reads
    return copy


def load(path: str | Path) -> ir.Model:
    """Read an ONNX file; external data stays on disk, memory-mapped.

    Raises:
        ModelError: If the file is missing, no ONNX model, or one whose graph makes no sense.
    """
    path = Path(path)
    source = _seen(path)
    model = from_proto(_read_proto(path), where=str(path), base_dir=path.parent)
    model.graph.meta[SOURCE] = source
    return model


def _seen(path: Path) -> Source | None:
    """Look at the file before it is read: what changes from then on will be noticed."""
    try:
        return Source.of(path)
    except OSError:
        return None  # reading it says why


def _read_proto(path: Path) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except OSError as error:
        raise ModelError(
            "cannot read the model",
            where=str(path),
            why=error.strerror or str(error),
            remedy="check the path and its permissions",
        ) from error
    except DecodeError as error:
        raise ModelError(
            "this is not an ONNX model, or only a part of one",
            where=str(path),
            why="its bytes do not parse as an onnx.ModelProto",
            remedy="check that the file is the exported .onnx and was copied completely",
        ) from error
    return proto


def from_proto(
    proto: onnx.ModelProto, *, where: str = "ModelProto", base_dir: Path | None = None
) -> ir.Model:
    """Turn a protobuf model into an onnx_ir model that remembers what onnx_ir would lose.

    Weights are shared with ``proto``, never copied; ``proto`` itself is not changed.

    Raises:
        ModelError: If the graph makes no sense, or external data is missing.
    """
    check_text(proto, where)
    check_structure(proto, where)
    check_external_data(proto, base_dir or Path(), where)
    try:
        model = ir.serde.deserialize_model(proto)
    except (ValueError, RuntimeError, TypeError, KeyError) as error:
        raise ModelError(
            "the model cannot be understood",
            where=where,
            why=str(error.__cause__ or error).splitlines()[0],
            remedy="run onnx.checker.check_model on it, or export it again",
        ) from error
    if base_dir is not None:
        bind_external_data(model, base_dir.absolute())  # the current folder may change
    model.graph.meta[READS] = tuple(reads_of_proto(proto, base_dir or Path(), "the model"))
    remember(model, proto)
    for graph, graph_proto in paired(model, proto):
        _adopt_sparse(graph, graph_proto)
    if sort_graphs(model):
        model.graph.meta[UNSORTED] = True
    return model


def _adopt_sparse(graph: ir.Graph, proto: onnx.GraphProto) -> None:
    """Give the values of sparse initializers their (dense, lazy) contents."""
    if not proto.sparse_initializer:
        return
    by_name = {sparse.values.name: sparse for sparse in proto.sparse_initializer}
    for node in graph.all_nodes():
        for value in node.inputs:
            if value is None or value.producer() is not None or value.name not in by_name:
                continue
            if value.is_graph_input() or value.is_initializer():
                continue
            sparse = by_name[value.name]
            value.const_value = ir.LazyTensor(
                _Densify(sparse),
                dtype=ir.DataType(sparse.values.data_type),
                shape=ir.Shape(sparse.dims),
                name=value.name,
            )


class _Densify:
    """Call to get the dense tensor of a sparse initializer (ONNX IR, SparseTensorProto)."""

    def __init__(self, sparse: onnx.SparseTensorProto) -> None:
        self._sparse = sparse

    def __call__(self) -> ir.TensorProtocol:
        dims = tuple(self._sparse.dims)
        values = onnx.numpy_helper.to_array(self._sparse.values)
        indices = onnx.numpy_helper.to_array(self._sparse.indices)
        dense = np.zeros(dims, dtype=values.dtype)
        if indices.ndim == 2:
            dense[tuple(indices.T)] = values
        else:
            dense.reshape(-1)[indices] = values
        return ir.tensor(dense, dtype=ir.DataType(self._sparse.values.data_type))


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Serialise a model; what `from_proto` read and nobody changed is written as it was.

    A model that was built in onnx_ir is written as onnx_ir does.
    """
    proto = ir.serde.serialize_model(model)
    put_back(proto, model)
    return proto
