"""Read and write models: the border between protobuf files and onnx_ir graphs."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from bnfold import limits, process
from bnfold.errors import ModelError, UsageError
from bnfold.model.amounts import SPARSE
from bnfold.model.external import (
    bind_external_data,
    check_external_data,
    no_word_of_onnx,
    read_rare_in,
)
from bnfold.model.graphs import graphs_of, sort_graphs
from bnfold.model.held_inside import HeldInside, held_inside
from bnfold.model.light import Light, light_of
from bnfold.model.neighbours import Neighbours
from bnfold.model.presence import paired, put_back, remember
from bnfold.model.reads import READS, SOURCE, Source, reads_of_model, reads_of_proto
from bnfold.model.regular import UnreadableError, read_regular
from bnfold.model.structure import check_structure
from bnfold.model.text import check_text
from bnfold.model.wire import MOST_BYTES

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
        copy = through_protobuf(model)
    copy.graph.meta[READS] = reads
    return copy


def load(path: str | Path) -> ir.Model:
    """Read an ONNX file; external data stays on disk, and so do large weights inside.

    Raises:
        ModelError: If the file is missing, no ONNX model, or one whose graph makes no sense.
    """
    path = Path(path)
    source = _seen(path)
    light = light_of(path)
    proto = _read_proto(path) if light is None else light.proto
    model = from_proto(proto, where=str(path), neighbours=Neighbours(path), light=light)
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
        proto.ParseFromString(read_regular(path, MOST_BYTES))
    except UnreadableError as error:
        raise ModelError(
            "cannot read the model",
            where=str(path),
            why=str(error),
            remedy="check the path and its permissions; it must be a file",
        ) from error
    except DecodeError as error:
        raise _unparsed(path, str(error)) from error
    return proto


def _unparsed(path: Path, said: str) -> ModelError:
    if "depth" in said.lower() or "recursion" in said.lower():
        return ModelError(
            "the model is nested deeper than protobuf reads",
            where=str(path),
            why="graphs in graphs, or types in types, go beyond its 100 levels of messages",
            remedy="export the model again; no runtime can read it either",
        )
    return ModelError(
        "this is not an ONNX model, or only a part of one",
        where=str(path),
        why="its bytes do not parse as an onnx.ModelProto",
        remedy="check that the file is the exported .onnx and was copied completely",
    )


def from_proto(
    proto: onnx.ModelProto,
    *,
    where: str = "ModelProto",
    neighbours: Neighbours | None = None,
    light: Light | None = None,
) -> ir.Model:
    """Turn a protobuf model into an onnx_ir model that remembers what onnx_ir would lose.

    Weights are shared with ``proto``, never copied; ``proto`` itself is not changed, unless
    there are neighbours and it is one of our own: then rare tensors are read into it.

    Args:
        proto: The model.
        where: Its name, for errors.
        neighbours: The files that it may read its data from; None for a model in memory.
        light: What was left out of it; None for nothing.

    Raises:
        ModelError: If the graph makes no sense, or external data is missing.
    """
    check_text(proto, where)
    check_structure(proto, where, () if light is None else light.offsets)
    check_external_data(proto, neighbours, where)
    folder = Path() if neighbours is None else neighbours.folder
    reads = tuple(reads_of_proto(proto, folder, "the model"))
    if neighbours is not None:
        sizes = {str(file): size_bytes for file, size_bytes in neighbours.sizes()}
        process.met(sizes, limits.current())
        read_rare_in(proto, neighbours, where)
    model = _understood(proto, where)
    model.graph.meta[READS] = reads
    if light is not None:
        _bind_light(model, light)
    if neighbours is not None:
        bind_external_data(model, neighbours)
    return model


def _bind_light(model: ir.Model, light: Light) -> None:
    """Tell every tensor that was left out where in the file it lies."""
    for number, offset in light.offsets.items():
        tensor = light.proto.graph.initializer[number]
        value = model.graph.initializers[tensor.name]
        value.const_value = held_inside(tensor, light.file, offset)


def _understood(proto: onnx.ModelProto, where: str) -> ir.Model:
    try:
        with no_word_of_onnx():
            model = ir.serde.deserialize_model(proto)
    except Exception as error:  # onnx_ir raises anything on what it does not expect
        said = str(error.__cause__ or error) or type(error).__name__
        raise ModelError(
            "the model cannot be understood",
            where=where,
            why=said.splitlines()[0],
            remedy="run onnx.checker.check_model on it, or export it again",
        ) from error
    remember(model, proto)
    for graph, graph_proto in paired(model, proto):
        _adopt_sparse(graph, graph_proto)
    if sort_graphs(model):
        model.graph.meta[UNSORTED] = True
    return model


def through_protobuf(model: ir.Model) -> ir.Model:
    """Copy a model that onnx_ir cannot clone; tensors in files stay where they are."""
    proto = to_proto(model)
    check_structure(proto, "onnx_ir.Model")
    copy = _understood(proto, "onnx_ir.Model")
    copy.graph.meta.update(
        (name, value)
        for name, value in model.graph.meta.items()
        if name not in copy.graph.meta
    )
    pairs = zip(graphs_of(copy.graph), graphs_of(model.graph), strict=True)
    for new, old in pairs:
        for name, value in new.initializers.items():
            tensor = old.initializers[name].const_value
            if isinstance(tensor, ir.ExternalTensor | HeldInside):
                value.const_value = tensor
    return copy


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
            value.const_value = dense = ir.LazyTensor(
                _Densify(sparse),
                dtype=ir.DataType(sparse.values.data_type),
                shape=ir.Shape(sparse.dims),
                name=value.name,
            )
            dense.meta[SPARSE] = True


class _Densify:
    """Call to get the dense tensor of a sparse initializer (ONNX IR, SparseTensorProto)."""

    def __init__(self, sparse: onnx.SparseTensorProto) -> None:
        self._sparse = sparse

    def __call__(self) -> ir.TensorProtocol:
        dims, most = tuple(self._sparse.dims), limits.current().elements
        if math.prod(dims) > most:
            raise self._fault(
                f"written out, it has {math.prod(dims)} elements, {most} at most"
            )
        values = onnx.numpy_helper.to_array(self._sparse.values)
        indices = onnx.numpy_helper.to_array(self._sparse.indices)
        ends = np.array(dims if indices.ndim == 2 else [math.prod(dims)])
        if ((indices < 0) | (indices >= ends)).any():
            raise self._fault(f"its indices lie outside of its shape {list(dims)}")
        dense = np.zeros(dims, dtype=values.dtype)
        if indices.ndim == 2:
            dense[tuple(indices.T)] = values
        else:
            dense.reshape(-1)[indices] = values
        return ir.tensor(dense, dtype=ir.DataType(self._sparse.values.data_type))

    def _fault(self, why: str) -> ModelError:
        return ModelError(
            "a sparse tensor cannot be read",
            where=f"sparse tensor {self._sparse.values.name!r}",
            why=why,
            remedy="export the model again, or allow more elements with --max-elements",
        )


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Serialise a model; what `from_proto` read and nobody changed is written as it was.

    A model that was built in onnx_ir is written as onnx_ir does.
    """
    proto = ir.serde.serialize_model(model)
    put_back(proto, model)
    return proto
