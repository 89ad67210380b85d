"""What a model holds, by digest: its nodes, its tensors, and the rest.

Digests are SHA-256 of contents, so they do not depend on whether weights lie inside of the
file or beside it, nor on the order of nodes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

from bnfold.blocks import CACHED_ELEMENTS, blocks
from bnfold.evidence import clock
from bnfold.evidence.proof.meanings import Meanings
from bnfold.model.digests import (
    Digest,
    Place,
    begun_digest,
    element_bytes,
    place_of,
    tensor_digest,
)
from bnfold.model.graphs import graphs_of
from bnfold.model.held_inside import PartsInFile

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
        meanings: What gives them their meaning, see `bnfold.evidence.proof.meanings`.
        operators: Their operators.
        tensors: Digests of the initializers of all graphs, by their key.
        keys: The keys of the nodes.
        stored: The values that hold the initializers, by their key.
    """

    header: str
    nodes: dict[str, str]
    meanings: dict[str, str]
    operators: dict[str, str]
    tensors: dict[str, str]
    keys: dict[ir.Node, str] = field(repr=False, compare=False)
    stored: dict[str, ir.Value] = field(repr=False, compare=False)

    def has_same(self, key: str, other: Contents) -> bool:
        """Return whether another model has the same node, with the same meaning."""
        return (
            bool(key)
            and other.nodes.get(key) == self.nodes[key]
            and other.meanings[key] == self.meanings[key]
        )

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


def contents_of_both(
    original: ir.Model, folded: ir.Model, known: Mapping[Place, str] = MappingProxyType({})
) -> tuple[Contents, Contents]:
    """Return the parts of two models; a tensor that both hold is read once.

    A fold in memory leaves most tensors as the objects that they were, and one in files most
    bytes as they were: of a tensor of the same name only what follows the first difference is
    digested a second time.

    Args:
        original: The one model.
        folded: The other.
        known: Digests of tensors, by where they are: whoever gives them has read all of them.

    Raises:
        OutOfTimeError: If there is no time to read them.
    """
    digests = dict(known)
    held = [_held(stored_values(model)) for model in (original, folded)]
    twins = {
        place_of(one): held[1][name]
        for name, one in held[0].items()
        if name in held[1] and _are_alike(one, held[1][name])
    }
    _digest((tensor for part in held for tensor in part.values()), digests, twins)
    return _contents(original, digests), _contents(folded, digests)


def _held(stored: Mapping[str, ir.Value]) -> dict[str, ir.TensorProtocol]:
    tensors = ((name, value.const_value) for name, value in stored.items())
    return {name: one for name, one in tensors if one is not None}


def _are_alike(one: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    """Whether two tensors differ in their elements alone, and parts of both can be read."""
    if not (isinstance(one, PartsInFile) and isinstance(other, PartsInFile)):
        return False
    return one.dtype == other.dtype and tuple(one.shape) == tuple(other.shape)


def _contents(model: ir.Model, known: dict[Place, str]) -> Contents:
    keys = _keys(model.graph)
    nodes = {key: _node_digest(node) for node, key in keys.items()}
    meaning = Meanings(model)
    meanings = {key: meaning.of(node) for node, key in keys.items()}
    operators = {key: node.op_type for node, key in keys.items()}
    stored = stored_values(model)
    held = {name: one.const_value for name, one in stored.items()}
    _digest((one for one in held.values() if one is not None), known, {})
    digests = {name: "" if one is None else known[place_of(one)] for name, one in held.items()}
    return Contents(_header_digest(model), nodes, meanings, operators, digests, keys, stored)


def _digest(
    tensors: Iterable[ir.TensorProtocol],
    known: dict[Place, str],
    twins: Mapping[Place, ir.TensorProtocol],
) -> None:
    """Add the digests of tensors that are not known, by where their bytes are.

    Large ones are read by several threads, the largest first: begun last, one would be waited
    for alone. The clock is asked here, between two of them: a thread of the pool does not see
    the deadline of the one that began it.

    Args:
        tensors: What is to be digested.
        known: Digests that are known; others are added.
        twins: Tensors that may have the same elements as that of a place.
    """
    fresh = {place_of(one): one for one in tensors}
    fresh = {place: one for place, one in fresh.items() if place not in known}
    large = {key: one for key, one in fresh.items() if one.size > _WORTH_A_THREAD}
    clock.check(_NS_PER_BYTE * sum(one.nbytes for one in large.values()) / _THREADS)
    for key, one in fresh.items():
        if key not in large:
            known[key] = tensor_digest(one)
    pool = ThreadPoolExecutor(_THREADS)
    try:
        told: list[tuple[Place, Future[_Told]]] = []
        paired: set[Place] = set()
        for key, one in sorted(large.items(), key=lambda item: -item[1].nbytes):
            if key in paired:
                continue
            twin = twins.get(key)
            other = None if twin is None else place_of(twin)
            if twin is None or other == key or other not in large or other in paired:
                told.append((key, pool.submit(_digested, one)))
                continue
            paired |= {key, other}
            told.append((key, pool.submit(_digested, one, twin, pool)))
        for key, future in told:
            found = future.result()
            known[key] = found.digest
            if key in paired:
                other = place_of(twins[key])
                known[other] = found.digest if found.rest is None else found.rest.result()
            clock.check()
    finally:
        pool.shutdown(cancel_futures=True)


class _Told(NamedTuple):
    """The digest of a tensor, and of its twin where that is another."""

    digest: str
    rest: Future[str] | None = None


def _digested(
    one: ir.TensorProtocol,
    twin: ir.TensorProtocol | None = None,
    pool: ThreadPoolExecutor | None = None,
) -> _Told:
    """Digest a tensor, and its twin as long as every byte of that is the same.

    Bytes that were compared and are equal have the same digest, so nothing is taken on trust:
    both are read. To compare them takes a tenth of the time.
    """
    if not (isinstance(one, PartsInFile) and isinstance(twin, PartsInFile) and pool):
        return _Told(tensor_digest(one))
    digest, rest = begun_digest(one), None
    for block in blocks((one.size,), CACHED_ELEMENTS):
        data = element_bytes(one.part(block.start, block.stop))
        if rest is None:
            other = element_bytes(twin.part(block.start, block.stop))
            if not np.array_equal(
                np.frombuffer(data, np.uint8), np.frombuffer(other, np.uint8)
            ):
                rest = pool.submit(_digest_from, digest.copy(), twin, block.start)
        digest.update(data)
    return _Told(digest.hexdigest(), rest)


def _digest_from(digest: Digest, tensor: PartsInFile, start: int) -> str:
    """Add the elements from one on to a digest that has all before it."""
    for block in blocks((tensor.size - start,), CACHED_ELEMENTS):
        digest.update(element_bytes(tensor.part(start + block.start, start + block.stop)))
    return digest.hexdigest()


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
