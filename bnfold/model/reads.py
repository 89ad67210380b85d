"""Every file that a model is read from: what nothing may write to."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from bnfold.files.apart import Read
from bnfold.files.identity import Identity
from bnfold.model.graphs import graphs_of
from bnfold.model.light import light_of

READS: Final = "bnfold.reads"
"""Under this name a graph notes the files that its model was read from."""

SOURCE: Final = "bnfold.source"
"""Under this name a graph notes the file that it is, if it is one."""


@dataclass(frozen=True, slots=True)
class Source:
    """The file that a model was read from, as it was then.

    Attributes:
        path: The absolute path, links as they are.
        identity: Which file that was.
        size_bytes: Its size.
        changed_ns: When it was last written to.
    """

    path: Path
    identity: Identity
    size_bytes: int
    changed_ns: int

    @staticmethod
    def of(path: Path) -> Source:
        """Look at the file.

        Raises:
            OSError: If it is not there.
        """
        found = path.stat()
        identity = Identity(found.st_dev, found.st_ino)
        return Source(path.absolute(), identity, found.st_size, found.st_mtime_ns)


_PLAIN: Final = frozenset(
    getattr(onnx.AttributeProto, kind)
    for kind in ("FLOAT", "INT", "STRING", "FLOATS", "INTS", "STRINGS")
)
"""Attributes without tensors: most of a large graph."""


def reads_of_file(path: Path, what: str) -> Iterator[Read]:
    """Yield a model file and its data files; of one that is no model, the file alone.

    Args:
        path: The ``.onnx`` file.
        what: What it is to a command: ``MODEL``.
    """
    yield Read(path, f"the input itself, {what}")
    proto = onnx.ModelProto()
    light = light_of(path)
    if light is not None:
        proto = light.proto
    else:
        with contextlib.suppress(OSError, DecodeError):
            if path.is_file() and _may_have_data(path):
                proto.ParseFromString(path.read_bytes())
    yield from reads_of_proto(proto, path.parent, f"{what} {path}")


def _may_have_data(path: Path) -> bool:
    """Whether it is worth reading all of a file: a model with data has this word in it."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(b"location") >= 0


def reads_of_proto(proto: onnx.ModelProto, base_dir: Path, what: str) -> Iterator[Read]:
    """Yield the data files that a model names, wherever in it."""
    locations = {
        entry.value
        for tensor in all_tensors(proto)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for location in sorted(locations):
        yield Read((base_dir / location).absolute(), f"which {what} reads its data from")


def reads_of_model(model: ir.Model) -> Iterator[Read]:
    """Yield what a model in memory was read from, and what it still is to be read from."""
    source = model.graph.meta.get(SOURCE)
    if isinstance(source, Source):
        yield Read(source.path, "the input itself")
    yield from model.graph.meta.get(READS, ())
    paths = {
        Path(value.const_value.path).absolute()
        for graph in graphs_of(model.graph)
        for value in graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    for path in sorted(paths):
        yield Read(path, "which the model reads its data from")


def all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model: of graphs, attributes, functions, sparse ones too."""
    yield from _of_graph(proto.graph)
    for function in proto.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type in _PLAIN:
                continue
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from _of_graph(graph)
