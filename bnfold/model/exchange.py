"""Tensors of a model in files of its own, for as long as it is written, or from then on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir

from bnfold.model import light
from bnfold.model.external import INSIDE, PLACES
from bnfold.model.graphs import graphs_of
from bnfold.model.held_inside import HeldInside
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


@dataclass(frozen=True, slots=True)
class Inside:
    """What goes into the model file.

    Attributes:
        moved: What was outside before, with its bytes in a message.
        left_out: What is put between the bytes of the message when that is written: there its
            ``raw_data`` is empty (`spliced`).
    """

    moved: Tensors = field(default_factory=dict)
    left_out: Tensors = field(default_factory=dict)


@contextlib.contextmanager
def exchanged(
    model: ir.Model, outside: Mapping[ir.Value, ir.TensorProtocol]
) -> Iterator[Inside]:
    """Exchange tensors of initializers for a while: all that are not outside are inside.

    Yields:
        Those that are inside in another way than before.
    """
    before: Tensors = {}
    inside = Inside(left_out=_left_out(model, outside))
    try:
        for graph in graphs_of(model.graph):
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is None:
                    continue
                if value in outside:
                    before[value], value.const_value = tensor, outside[value]
                elif value in inside.left_out:
                    tensor.name = value.name  # as onnx_ir does with what it writes
                    before[value], value.const_value = tensor, _empty(tensor)
                elif isinstance(tensor, ir.ExternalTensor):
                    inside.moved[value] = _inside(tensor, tensor.tobytes())
                    before[value], value.const_value = tensor, inside.moved[value]
        yield inside
    finally:
        for value, tensor in before.items():
            value.const_value = tensor


def _left_out(model: ir.Model, outside: Mapping[ir.Value, ir.TensorProtocol]) -> Tensors:
    """Return the large tensors of the main graph that are to go inside, if they are many."""
    found = {
        value: value.const_value
        for value in model.graph.initializers.values()
        if value not in outside
        and value.const_value is not None
        and _is_worth_it(value.const_value)
    }
    is_held = any(isinstance(tensor, HeldInside) for tensor in found.values())
    size = sum(tensor.nbytes for tensor in found.values())
    return found if is_held or size >= light.LEAST_FILE_BYTES else {}


def _is_worth_it(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor is large, and is not in memory as a message already."""
    if tensor.dtype is ir.DataType.STRING or tensor.nbytes < max(light.LEAST_BYTES, 1):
        return False
    is_message = isinstance(tensor, ir.serde.TensorProtoTensor)
    return isinstance(tensor, HeldInside) or not is_message


def _empty(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return what is written as a tensor would be, but for its bytes."""
    if isinstance(tensor, ir.ExternalTensor):
        return _inside(tensor, b"")
    if isinstance(tensor, HeldInside):
        proto = onnx.TensorProto()
        proto.CopyFrom(tensor.light)
        proto.raw_data = b""
    else:
        proto = _message(tensor, b"")
    empty = ir.serde.TensorProtoTensor(proto)
    # onnx_ir adds these to what stands in the message
    empty.metadata_props.clear()
    empty.metadata_props.update(tensor.metadata_props)
    return empty


def _inside(tensor: ir.ExternalTensor, data: bytes) -> ir.TensorProtocol:
    """Return a tensor of a data file with bytes in a message."""
    proto = _message(tensor, data)
    for key, text in tensor.metadata_props.items():
        proto.metadata_props.add(key=key, value=text)
    return ir.serde.TensorProtoTensor(proto)


def _message(tensor: ir.TensorProtocol, data: bytes) -> onnx.TensorProto:
    """Return the message of a tensor that has none, without its metadata."""
    proto = onnx.TensorProto(
        name=tensor.name,
        data_type=int(tensor.dtype),
        dims=tensor.shape.numpy(),
        raw_data=data,
    )
    if tensor.doc_string:
        proto.doc_string = tensor.doc_string
    return proto


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
