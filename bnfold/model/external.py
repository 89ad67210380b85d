"""External data: weights that live in a file beside the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from bnfold.errors import ModelError
from bnfold.model.graphs import graphs_of
from bnfold.model.structure import subgraphs


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

    The attributes are few and small; held in memory they cannot point to a file that a saved
    copy in another folder does not have.
    """
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


def has_external_data(model: ir.Model) -> bool:
    """Return whether any initializer lives outside of the model file."""
    return any(
        isinstance(value.const_value, ir.ExternalTensor)
        for graph in graphs_of(model.graph)
        for value in graph.initializers.values()
    )
