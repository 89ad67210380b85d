"""Tensors of a model in files of its own, for as long as it is written, or from then on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from bnfold.model.external import INSIDE, PLACES
from bnfold.model.graphs import graphs_of
from bnfold.model.held_outside import DataFile, held_outside
from bnfold.model.layout import Plan
from bnfold.model.neighbours import Region

Tensors = dict[ir.Value, ir.TensorProtocol]


def outside_of(plan: Plan, paths: Sequence[Path]) -> dict[ir.Value, ir.ExternalTensor]:
    """Return the initializers of data files, as tensors in these files."""
    return {
        value: _in_file(value.const_value, offset, path)
        for placed, path in zip(plan.files, paths, strict=True)
        for _, offset, values in placed
        for value in values
        if value.const_value is not None
    }


def _in_file(tensor: ir.TensorProtocol, offset: int, path: Path) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        path.name,
        offset,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tuple(tensor.shape.numpy())),
        name=tensor.name or "",
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
        base_dir=path.parent,
    )


@contextlib.contextmanager
def exchanged(
    model: ir.Model, outside: Mapping[ir.Value, ir.TensorProtocol]
) -> Iterator[Tensors]:
    """Exchange tensors of initializers for a while: all that are not outside are inside.

    Yields:
        Those that were outside before.
    """
    before: Tensors = {}
    inside: Tensors = {}
    try:
        for graph in graphs_of(model.graph):
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is None:
                    continue
                if value in outside:
                    before[value], value.const_value = tensor, outside[value]
                elif isinstance(tensor, ir.ExternalTensor):
                    inside[value] = _inside(tensor)
                    before[value], value.const_value = tensor, inside[value]
        yield inside
    finally:
        for value, tensor in before.items():
            value.const_value = tensor


def _inside(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    """Return the same tensor with its bytes in a message, as they are."""
    proto = onnx.TensorProto(
        name=tensor.name,
        data_type=int(tensor.dtype),
        dims=tensor.shape.numpy(),
        raw_data=tensor.tobytes(),
    )
    if tensor.doc_string:
        proto.doc_string = tensor.doc_string
    for key, text in tensor.metadata_props.items():
        proto.metadata_props.add(key=key, value=text)
    return ir.serde.TensorProtoTensor(proto)


def go_on(
    model: ir.Model, outside: Mapping[ir.Value, ir.ExternalTensor], inside: Tensors
) -> None:
    """Let the model in memory read its weights where they are now."""
    files: dict[str, DataFile] = {}
    places: dict[str, Region] = {}
    for value, tensor in outside.items():
        if tensor.path not in files:
            files[tensor.path] = DataFile(Path(tensor.path))
        value.const_value = held_outside(tensor, files[tensor.path])
        places[value.name or ""] = Region(
            str(tensor.location), tensor.offset or 0, tensor.nbytes
        )
    for value, held in inside.items():
        value.const_value = held
    model.graph.meta[PLACES] = places
    model.graph.meta[INSIDE] = frozenset(
        value.name or ""
        for graph in graphs_of(model.graph)
        for value in graph.initializers.values()
        if value not in outside
    )
