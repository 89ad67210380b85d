"""External data: weights that live in a file beside the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir

from bnfold.errors import ModelError
from bnfold.model.graphs import graphs_of
from bnfold.model.structure import subgraphs

OUTSIDE_FROM_BYTES: Final = "bnfold.outside_from_bytes"
_DEFAULT_OUTSIDE_FROM_BYTES: Final = 1024
_PROTOBUF_LIMIT_BYTES: Final = 1_900_000_000


def check_external_data(proto: onnx.ModelProto, base_dir: Path, where: str) -> None:
    """Check that every external tensor's file is there and long enough.

    Raises:
        ModelError: Naming the tensor and the file.
    """
    sizes: dict[Path, int] = {}
    for tensor in external_tensors(proto.graph):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        path = base_dir / location
        if not path.resolve().is_relative_to(base_dir.resolve()):
            raise ModelError(
                "the model reads external data from outside of its folder",
                where=f"{where}: tensor {tensor.name!r}",
                why=f"its location is {location!r}; ONNX allows paths below the model only",
                remedy="put the data file beside the model and correct the location",
            )
        if path not in sizes:
            sizes[path] = path.stat().st_size if location and path.is_file() else -1
        needed_bytes = int(entries.get("offset", 0)) + int(entries.get("length", 0))
        if sizes[path] < 0:
            raise ModelError(
                "the external data of the model is missing",
                where=f"{where}: tensor {tensor.name!r}",
                why=f"there is no file {str(path)!r}",
                remedy="copy the data file beside the .onnx file",
            )
        if sizes[path] < needed_bytes:
            raise ModelError(
                "the external data of the model is cut off",
                where=f"{where}: tensor {tensor.name!r}",
                why=f"{str(path)!r} has {sizes[path]} bytes, {needed_bytes} are needed",
                remedy="copy the data file again, completely",
            )


def external_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor whose bytes are outside of the model file."""
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and (
                attribute.t.data_location == onnx.TensorProto.EXTERNAL
            ):
                yield attribute.t
        for subgraph in subgraphs(node):
            yield from external_tensors(subgraph)


def bind_external_data(model: ir.Model, base_dir: Path) -> None:
    """Tell external initializers their folder, and read external Constant attributes in.

    The graph remembers from which size on its initializers were outside, so that a fold, whose
    new tensors are in memory, can put them outside again.

    The attributes are few and small; held in memory they cannot point to a file that a saved
    copy in another folder does not have.
    """
    sizes = [
        value.const_value.nbytes
        for graph in graphs_of(model.graph)
        for value in graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    ]
    if sizes:
        model.graph.meta[OUTSIDE_FROM_BYTES] = min(*sizes, _DEFAULT_OUTSIDE_FROM_BYTES)
    for graph in graphs_of(model.graph):
        ir.external_data.set_base_dir(graph, base_dir)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if isinstance(attribute.value, ir.ExternalTensor):
                    inside = ir.tensor(
                        attribute.value.numpy().copy(),
                        dtype=attribute.value.dtype,
                        name=attribute.value.name,
                    )
                    node.attributes[name] = ir.AttrTensor(name, inside)


def outside_from_bytes(model: ir.Model) -> int | None:
    """Return the size from which on initializers belong outside of the file; None for nowhere.

    They do when they were outside before, or when protobuf's 2 GB would not hold them.
    """
    initializers = [v for graph in graphs_of(model.graph) for v in graph.initializers.values()]
    tensors = [v.const_value for v in initializers if v.const_value is not None]
    remembered = model.graph.meta.get(OUTSIDE_FROM_BYTES)
    if isinstance(remembered, int):
        return remembered
    outside = any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)
    if outside or sum(tensor.nbytes for tensor in tensors) > _PROTOBUF_LIMIT_BYTES:
        return _DEFAULT_OUTSIDE_FROM_BYTES
    return None
