"""External data: weights that live in a file beside the model."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Final

import onnx
import onnx_ir as ir

from bnfold.errors import ModelError
from bnfold.model.graphs import graphs_of
from bnfold.model.held_outside import DataFile, held_outside
from bnfold.model.neighbours import Neighbours, Region
from bnfold.model.tensors import Stored, needed_bytes, stored_tensors

PLACES: Final = "bnfold.places"
"""Under this name a graph notes where its initializers lay that were outside, by name."""

INSIDE: Final = "bnfold.inside"
"""Under this name a graph notes the names of those that were inside."""

PROTOBUF_LIMIT_BYTES: Final = 1_900_000_000
"""So many bytes of tensors a model file may hold; protobuf's limit is 2³¹ for all of it."""

_MOST_DIGITS: Final = 18
_KEYS: Final = ("location", "offset", "length")


def check_external_data(
    proto: onnx.ModelProto, neighbours: Neighbours | None, where: str
) -> None:
    """Check every external tensor: where it lies, and that all of it is there.

    That goes for initializers, attributes, sparse tensors, functions, subgraphs and what is
    for training, before anything is read.

    Args:
        proto: The model, its tensors checked as by `tensors.check_tensor`.
        neighbours: The files that it may read; None for a model that is in memory only.
        where: Its name, for the error.

    Raises:
        ModelError: Naming the tensor and the file.
    """
    for stored in stored_tensors(proto):
        if stored.tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        if neighbours is None:
            raise ModelError(
                "the data of the model lies outside of it, and it is not said where",
                where=f"{where}: {stored.place}",
                why="a ModelProto in memory has no folder that its location could be in",
                remedy="give the path of the .onnx file, or load it with onnx.load(path)",
            )
        _check_region(stored, neighbours, where)


def _check_region(stored: Stored, neighbours: Neighbours, where: str) -> None:
    tensor = stored.tensor
    if tensor.data_type == onnx.TensorProto.STRING:
        raise _fault(stored, where, "texts cannot lie in a data file", "its type is STRING")
    region = _region(stored, where)
    if region.length is not None and region.length != needed_bytes(tensor):
        raise _fault(
            stored,
            where,
            "the external data of a tensor is shorter or longer than the tensor",
            f"its length is {region.length} bytes, shape {list(tensor.dims)} needs"
            f" {needed_bytes(tensor)}",
        )
    neighbours.check(region, needed_bytes(tensor), f"{where}: {stored.place}")


def _region(stored: Stored, where: str) -> Region:
    """Read what says where the data is: each key once, numbers that are numbers."""
    entries: dict[str, str] = {}
    for entry in stored.tensor.external_data:
        if entry.key in _KEYS and entry.key in entries:
            why = f"{entry.key!r} is given twice"
            raise _fault(stored, where, "it is not clear where external data lies", why)
        entries[entry.key] = entry.value
    numbers: dict[str, int] = {}
    for key in _KEYS[1:]:
        text = entries.get(key)
        if text is None:
            continue
        if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
            why = f"its {key} is {text[:40]!r}: a whole number of bytes is required"
            raise _fault(stored, where, "it is not clear where external data lies", why)
        numbers[key] = int(text)
    location = entries.get("location", "")
    return Region(location, numbers.get("offset", 0), numbers.get("length"))


def _fault(stored: Stored, where: str, what: str, why: str) -> ModelError:
    return ModelError(
        what,
        where=f"{where}: {stored.place}",
        why=why,
        remedy="export the model again, or save it anew with onnx.save_model",
    )


def bind_external_data(model: ir.Model, neighbours: Neighbours) -> None:
    """Tell every external tensor the file that it is in; it has been checked.

    The graph remembers where they lay, so that a fold, whose new tensors are in memory, can
    lay them out so again.

    Attributes become tensors that are part of the model, still mapped from the file: a saved
    copy in another folder has no such file.
    """
    graphs = list(_all_graphs(model))
    bound = _binder(neighbours)
    places: dict[str, Region] = {}
    inside: set[str] = set()
    for value in (value for graph in graphs for value in graph.initializers.values()):
        tensor, name = value.const_value, value.name or ""
        if not isinstance(tensor, ir.ExternalTensor):
            inside.add(name)
            continue
        value.const_value = bound(tensor)
        places[name] = Region(str(tensor.location), tensor.offset or 0, tensor.nbytes)
    if places:
        model.graph.meta[PLACES], model.graph.meta[INSIDE] = places, frozenset(inside)
    for graph in graphs:
        for node in graph:
            _bind_attributes(node, bound)


_Bind = Callable[[ir.TensorProtocol | None], ir.TensorProtocol]


def _binder(neighbours: Neighbours) -> _Bind:
    files: dict[str, DataFile] = {}

    def bound(tensor: ir.TensorProtocol | None) -> ir.TensorProtocol:
        assert isinstance(tensor, ir.ExternalTensor)
        location = str(tensor.location)
        if location not in files:
            files[location] = DataFile(neighbours.file(location))
        return held_outside(tensor, files[location])

    return bound


def _bind_attributes(node: ir.Node, bound: _Bind) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.is_ref():
            continue
        if isinstance(attribute.value, ir.ExternalTensor):
            node.attributes[name] = ir.AttrTensor(name, _inside(attribute.value, bound))
        elif attribute.type is ir.AttributeType.TENSORS:
            tensors = attribute.as_tensors()
            if any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors):
                whole = [_inside(tensor, bound) for tensor in tensors]
                node.attributes[name] = ir.AttrTensors(name, whole)


def _inside(tensor: ir.TensorProtocol, bound: _Bind) -> ir.TensorProtocol:
    """Return a tensor that is written into the model, its elements mapped from its file."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(
        bound(tensor).numpy(),
        dtype=tensor.dtype,
        name=tensor.name,
        doc_string=tensor.doc_string,
    )


def _all_graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """Yield the graphs of a model, and those of its functions."""
    yield from graphs_of(model.graph)
    for function in model.functions.values():
        yield from graphs_of(function.graph)


def read_rare_in(proto: onnx.ModelProto, neighbours: Neighbours, where: str) -> None:
    """Put the data of external tensors that onnx_ir would not map into the message.

    These are parts of sparse tensors, what is for training, and defaults of functions: written
    elsewhere, they would name a file that is not there.

    Args:
        proto: A message of our own, changed in place; its tensors have been checked.
        neighbours: The files that it reads.
        where: Its name, for the error.

    Raises:
        ModelError: If one file is named so often that a model file could not hold all that.
    """
    rare = [
        stored
        for stored in stored_tensors(proto)
        if not stored.is_plain and stored.tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    whole_bytes = sum(needed_bytes(stored.tensor) for stored in rare)
    if whole_bytes > PROTOBUF_LIMIT_BYTES:
        why = f"they hold {whole_bytes} bytes, which no model file can"
        raise _fault(rare[0], where, "sparse or training tensors are too large", why)
    for stored in rare:
        tensor, region = stored.tensor, _region(stored, where)
        tensor.raw_data = neighbours.bytes_of(region, needed_bytes(tensor))
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


@contextlib.contextmanager
def no_word_of_onnx() -> Iterator[None]:
    """Keep to itself what onnx remarks on entries of external data that it does not know."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
