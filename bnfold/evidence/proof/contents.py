"""What a model holds, by digest: its nodes, its tensors, and the rest.

Digests are SHA-256 of contents, so they do not depend on whether weights lie inside of the
file or beside it, nor on the order of nodes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence import clock
from bnfold.model.graphs import graphs_of
from bnfold.model.pieces import pieces_of

_THREADS: Final = 2
_WORTH_A_THREAD: Final = 1 << 17
_NS_PER_BYTE: Final = 0.3
"""SHA-256 takes at the least so long: what cannot be digested in time is not begun."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The parts of a model, each by its digest.

    Attributes:
        header: Digest of all but nodes and initializers: interface, opsets, functions,
            metadata.
        nodes: Digests of the nodes of the main graph, subgraphs included, by their key.
        operators: Their operators.
        tensors: Digests of the initializers of all graphs, by their key.
        keys: The keys of the nodes.
        stored: The values that hold the initializers, by their key.
    """

    header: str
    nodes: dict[str, str]
    operators: dict[str, str]
    tensors: dict[str, str]
    keys: dict[ir.Node, str] = field(repr=False, compare=False)
    stored: dict[str, ir.Value] = field(repr=False, compare=False)

    @property
    def digest(self) -> str:
        """Digest of all of it."""
        whole = hashlib.sha256(self.header.encode())
        for part in (self.nodes, self.tensors):
            for name in sorted(part):
                whole.update(f"\n{name}={part[name]}".encode())
            whole.update(b"\n\n")
        return whole.hexdigest()


def contents_of(model: ir.Model) -> Contents:
    """Return the parts of a model; reads every weight once.

    Raises:
        OutOfTimeError: If there is no time to read them.
    """
    return _contents(model, {})


def contents_of_both(original: ir.Model, folded: ir.Model) -> tuple[Contents, Contents]:
    """Return the parts of two models; a tensor that both hold is read once.

    A fold in memory leaves most tensors as the objects that they were.

    Raises:
        OutOfTimeError: If there is no time to read them.
    """
    known: dict[_Place, str] = {}
    return _contents(original, known), _contents(folded, known)


_Place = tuple[Hashable, ...]
"""Where the bytes of a tensor are, as long as both models are held."""


def _place_of(tensor: ir.TensorProtocol) -> _Place:
    """Return where a tensor's bytes are: a range of a file, or the object itself.

    A file that is opened twice gives other objects; its type and shape belong to the digest.
    """
    if isinstance(tensor, ir.ExternalTensor):
        shape = tuple(tensor.shape.numpy())
        return str(tensor.path), tensor.offset, tensor.length, tensor.dtype, shape
    return (id(tensor),)


def _contents(model: ir.Model, known: dict[_Place, str]) -> Contents:
    keys = _keys(model.graph)
    nodes = {key: _node_digest(node) for node, key in keys.items()}
    operators = {key: node.op_type for node, key in keys.items()}
    stored = stored_values(model)
    held = {name: one.const_value for name, one in stored.items()}
    tensors = [one for one in held.values() if one is not None]
    _digest(tensors, known)
    digests = {
        name: "" if one is None else known[_place_of(one)] for name, one in held.items()
    }
    return Contents(_header_digest(model), nodes, operators, digests, keys, stored)


def _digest(tensors: Iterable[ir.TensorProtocol], known: dict[_Place, str]) -> None:
    """Add the digests of tensors that are not known, by where their bytes are.

    Large ones are read by several threads. The clock is asked here, between two of them: a
    thread of the pool does not see the deadline of the one that began it.
    """
    fresh = {_place_of(one): one for one in tensors}
    fresh = {place: one for place, one in fresh.items() if place not in known}
    large = {key: one for key, one in fresh.items() if one.size > _WORTH_A_THREAD}
    clock.check(_NS_PER_BYTE * sum(one.nbytes for one in large.values()) / _THREADS)
    pool = ThreadPoolExecutor(_THREADS)
    try:
        told = [(key, pool.submit(tensor_digest, one)) for key, one in large.items()]
        for key, one in fresh.items():
            if key not in large:
                known[key] = tensor_digest(one)
        for key, digest in told:
            known[key] = digest.result()
            clock.check()
    finally:
        pool.shutdown(cancel_futures=True)


def stored_values(model: ir.Model) -> dict[str, ir.Value]:
    """Return every value that holds an initializer, by a key of its own: its name.

    Names that several subgraphs use get a number behind them, in the order of the graphs.
    """
    found: dict[str, ir.Value] = {}
    taken: Counter[str] = Counter()
    for graph in graphs_of(model.graph):
        for name, value in graph.initializers.items():
            if value.const_value is None:
                continue
            taken[name] += 1
            found[name if taken[name] == 1 else f"{name} #{taken[name]}"] = value
    return found


def _keys(graph: ir.Graph) -> dict[ir.Node, str]:
    """Name every node: by its name where that is its own, else by what it writes."""
    counts = Counter(node.name for node in graph)
    taken: Counter[str] = Counter()
    keys: dict[ir.Node, str] = {}
    for node in graph:
        own = node.name if node.name and counts[node.name] == 1 else ""
        key = own or f"{node.op_type} → {next(_outputs(node), '')}"
        taken[key] += 1
        keys[node] = key if taken[key] == 1 else f"{key} #{taken[key]}"
    return keys


def _outputs(node: ir.Node) -> Iterator[str]:
    return (value.name for value in node.outputs if value.name)


def _node_digest(node: ir.Node) -> str:
    proto = ir.serde.serialize_node(node)
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()


def tensor_digest(tensor: ir.TensorProtocol) -> str:
    """Return the digest of the type, the shape and the elements of a tensor."""
    shape = tuple(int(size) for size in tensor.shape.numpy())
    digest = hashlib.sha256(f"{tensor.dtype.name} {shape}\n".encode())
    for piece in pieces_of(tensor):
        digest.update(_bytes(piece))
    return digest.hexdigest()


def _bytes(elements: NDArray[np.generic]) -> bytes | memoryview:
    flat = elements.reshape(-1)
    if elements.dtype == np.object_:
        return b"\0".join(bytes(one) for one in flat.tolist())
    return flat.view(np.uint8).data if flat.size else b""


def _header_digest(model: ir.Model) -> str:
    proto = onnx.ModelProto()
    for domain, version in sorted(model.opset_imports.items()):
        proto.opset_import.add(domain=domain, version=version)
    proto.ir_version = model.ir_version
    proto.producer_name = model.producer_name or ""
    proto.doc_string = model.doc_string or ""
    for key, text in sorted(model.metadata_props.items()):
        proto.metadata_props.add(key=key, value=text)
    for _, function in sorted(model.functions.items()):
        ir.serde.serialize_function_into(proto.functions.add(), function)
    proto.graph.name = model.graph.name or ""
    for value in model.graph.inputs:
        ir.serde.serialize_value_into(proto.graph.input.add(), value)
    for value in model.graph.outputs:
        ir.serde.serialize_value_into(proto.graph.output.add(), value)
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
