"""Is this protobuf a graph at all? The faults that no later part could name as clearly."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnx

from bnfold import limits
from bnfold.errors import ModelError
from bnfold.model.attribute_kinds import Arity, arity_of, check_attributes
from bnfold.model.call_graph import Calls, check_calls
from bnfold.model.deadly import check_survivable
from bnfold.model.tensors import check_sparse, check_tensor, stored_tensors

_DEFAULT_DOMAINS: Final = ("", "ai.onnx")
_MOST_VERSION: Final = 1 << 20
"""Versions of operator sets are small numbers; onnx holds them in a C int."""


@dataclass(frozen=True, slots=True)
class _Body:
    """A graph, or the body of a function: what has inputs, nodes and outputs.

    Attributes:
        inputs: Their names.
        weights: Names of its initializers.
        nodes: Its nodes.
        outputs: Their names.
        name: Its own name, in words.
        function: Whether it is a function's.
    """

    inputs: Sequence[str]
    weights: Sequence[str]
    nodes: Sequence[onnx.NodeProto]
    outputs: Sequence[str]
    name: str
    function: bool = False

    @classmethod
    def of_graph(cls, graph: onnx.GraphProto, *, function: bool = False) -> _Body:
        return cls(
            [entry.name for entry in graph.input],
            list(_initializer_names(graph)),
            graph.node,
            [entry.name for entry in graph.output],
            f"graph {graph.name!r}",
            function,
        )

    @classmethod
    def of_function(cls, function: onnx.FunctionProto) -> _Body:
        name = f"function {function.name!r}"
        return cls(function.input, (), function.node, function.output, name, function=True)


def check_structure(proto: onnx.ModelProto, where: str, checked: Container[int] = ()) -> None:
    """Refuse a model whose graph is empty, ill-named or cyclic, or lacks an opset import.

    An unsorted graph is no fault: the reader sorts it. Nor is one without nodes that returns
    its inputs or initializers.

    Args:
        proto: The model.
        where: Its name, for errors.
        checked: Initializers of the main graph that were checked, by their number: their data
            is not in the message.

    Raises:
        ModelError: Naming the fault, the node or tensor, and what to do.
    """
    if not proto.graph.output:
        raise ModelError(
            "the model has no graph to fold",
            where=where,
            why="its graph is missing, or has no outputs",
            remedy="export the model again; a file of zero bytes is an interrupted download",
        )
    imports = _imports(proto.opset_import, where)
    calls = check_calls(proto, where)
    main = _Body.of_graph(proto.graph)
    _check_body(main, frozenset(), _Scope(imports, calls, where))
    for function in proto.functions:
        place = f"{where}: function {function.name!r}"
        scope = _Scope(_imports(function.opset_import, place), calls, place)
        _check_body(_Body.of_function(function), frozenset(), scope)
        for default in function.attribute_proto:
            fake = onnx.NodeProto(name=function.name, attribute=[default])
            check_attributes(fake, place, in_function=True, opset=None)
    for training in proto.training_info:
        for graph in (training.initialization, training.algorithm):
            _check_kinds(graph, where)
    for number, stored in enumerate(stored_tensors(proto)):
        if number not in checked:  # those initializers are the first of all tensors
            check_tensor(stored, where)
    _check_sparse(proto.graph, where)


@dataclass(frozen=True, slots=True)
class _Scope:
    """What holds for all graphs of a model, or of one function.

    Attributes:
        imports: Versions of operator sets, by domain.
        calls: The functions of the model.
        where: The place, for errors.
        depth: How many graphs this one stands in.
    """

    imports: Mapping[str, int]
    calls: Calls
    where: str
    depth: int = 0

    def deeper(self, node: onnx.NodeProto) -> _Scope:
        most = limits.current().depth
        if self.depth >= most:
            raise ModelError(
                "graphs in graphs are nested too deep",
                where=f"{self.where}: node {node.name or node.op_type!r}",
                why=f"{most} levels are the most that is followed",
                remedy="export the model again; no network is built like this",
            )
        return _Scope(self.imports, self.calls, self.where, self.depth + 1)


def _imports(entries: Iterable[onnx.OperatorSetIdProto], where: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in entries:
        domain = _canonical(entry.domain)
        if not 1 <= entry.version <= _MOST_VERSION:
            raise ModelError(
                "the version of an operator set makes no sense",
                where=f"{where}: opset import of {entry.domain or 'ai.onnx'!r}",
                why=f"it is {entry.version}",
                remedy="export the model again",
            )
        if found.setdefault(domain, entry.version) != entry.version:
            raise ModelError(
                f"the operator set {entry.domain or 'ai.onnx'!r} is imported twice",
                where=where,
                why=f"as version {found[domain]} and as version {entry.version}",
                remedy="leave one of them in model.opset_import",
            )
    return found


def _canonical(domain: str) -> str:
    return "" if domain in _DEFAULT_DOMAINS else domain


def _check_body(body: _Body, outer: frozenset[str], scope: _Scope) -> None:
    """Check every node, that every name is written once, and that what is read is written."""
    written = _written_names(body, scope.where)
    known = outer | written
    for node in body.nodes:
        _check_node(node, body, known, scope)
        for subgraph in subgraphs(node):
            inner = _Body.of_graph(subgraph, function=body.function)
            _check_body(inner, known, scope.deeper(node))
    for name in body.outputs:
        if name not in written:
            raise ModelError(
                f"the graph output {name!r} is not written in its graph",
                where=f"{scope.where}: {body.name}",
                why="no node, input or initializer of that graph has the name",
                remedy="export the model again; return outer values through an Identity node",
            )
    _check_acyclic(body, scope.where)


def _check_node(
    node: onnx.NodeProto, body: _Body, known: frozenset[str], scope: _Scope
) -> None:
    where, domain = scope.where, _canonical(node.domain)
    if domain not in scope.imports:
        raise ModelError(
            f"the model imports no operator set for domain {domain or 'ai.onnx'!r}",
            where=f"{where}: node {node.name or node.op_type!r}",
            why="without an opset import the meaning of its operators is undefined",
            remedy="add it to model.opset_import, or export the model again",
        )
    for name in node.input:
        if name and name not in known:
            raise ModelError(
                f"a node reads {name!r}, which nothing writes",
                where=f"{where}: node {node.name or node.op_type!r}",
                why="it is no input, no initializer and no node's output",
                remedy="export the model again, or add the missing tensor",
            )
    called = scope.calls.arity(node)
    own = domain == "" and called is None
    opset = scope.imports[domain] if own else None
    check_attributes(node, where, in_function=body.function, opset=opset)
    if own:
        check_survivable(node, where)
    arity = arity_of(node.op_type, opset) if opset is not None else called
    if arity is not None:
        _check_arity(node, arity, where)


def _check_arity(node: onnx.NodeProto, arity: Arity, where: str) -> None:
    reads, writes = len(node.input), len(node.output)
    absent = [place for place in arity.required if place >= reads or not node.input[place]]
    why = ""
    if not arity.reads[0] <= reads <= arity.reads[1]:
        why = f"it has {reads} inputs, {_span(*arity.reads)} are possible"
    elif absent:
        why = f"its input {absent[0]} is required, and absent"
    elif not arity.writes[0] <= writes <= arity.writes[1]:
        why = f"it has {writes} outputs, {_span(*arity.writes)} are possible"
    if why:
        raise ModelError(
            f"{node.op_type} does not take these inputs and outputs",
            where=f"{where}: node {node.name or node.op_type!r} ({node.op_type})",
            why=why,
            remedy="export the model again",
        )


def _span(least: int, most: int) -> str:
    if least == most:
        return str(least)
    return f"{least} or more" if most > 1 << 30 else f"{least} to {most}"


def _check_kinds(graph: onnx.GraphProto, where: str) -> None:
    """Check attributes alone: of graphs that are kept, and not looked at."""
    for node in graph.node:
        check_attributes(node, where, in_function=True, opset=None)
        for subgraph in subgraphs(node):
            _check_kinds(subgraph, where)


def _check_sparse(graph: onnx.GraphProto, where: str) -> None:
    for sparse in graph.sparse_initializer:
        check_sparse(sparse, where)
    for node in graph.node:
        for subgraph in subgraphs(node):
            _check_sparse(subgraph, where)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs in a node's attributes, e.g. the branches of an If."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _written_names(body: _Body, where: str) -> frozenset[str]:
    inputs = _once(body.inputs, "graph inputs", where)
    weights = _once(body.weights, "initializers", where)
    outputs = _once(
        (name for node in body.nodes for name in node.output if name), "node outputs", where
    )
    if "" in inputs or "" in weights:
        raise ModelError(
            "a graph input or an initializer has no name",
            where=f"{where}: {body.name}",
            why="nothing could read it",
            remedy="export the model again",
        )
    for clash in sorted(outputs & (inputs | weights)):
        raise _duplicate(clash, "a node output and a graph input or initializer", where)
    return inputs | weights | outputs


def _initializer_names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)


def _once(names: Iterable[str], kind: str, where: str) -> frozenset[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise _duplicate(name, f"two {kind}", where)
        seen.add(name)
    return frozenset(seen)


def _duplicate(name: str, holders: str, where: str) -> ModelError:
    return ModelError(
        f"the name {name!r} is used twice",
        where=where,
        why=f"it is the name of {holders}; ONNX requires single assignment",
        remedy="rename one of them, or export the model again",
    )


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names a node reads, through its subgraphs too."""
    yield from (name for name in node.input if name)
    for subgraph in subgraphs(node):
        own = {name for inner in subgraph.node for name in inner.output}
        own.update(entry.name for entry in subgraph.input)
        own.update(_initializer_names(subgraph))
        for inner in subgraph.node:
            yield from (name for name in _reads(inner) if name not in own)
        yield from (entry.name for entry in subgraph.output if entry.name not in own)


def _check_acyclic(body: _Body, where: str) -> None:
    """Peel off nodes whose inputs are ready (Kahn 1962); what remains stands on a cycle."""
    writer = {
        name: place for place, node in enumerate(body.nodes) for name in node.output if name
    }
    readers: list[list[int]] = [[] for _ in body.nodes]
    waits = [0] * len(body.nodes)
    for place, node in enumerate(body.nodes):
        for source in {writer[name] for name in _reads(node) if name in writer}:
            readers[source].append(place)
            waits[place] += 1
    ready = [place for place, count in enumerate(waits) if not count]
    done = 0
    while ready:
        done += 1
        for reader in readers[ready.pop()]:
            waits[reader] -= 1
            if not waits[reader]:
                ready.append(reader)
    if done < len(body.nodes):
        stuck = next(node for node, count in zip(body.nodes, waits, strict=True) if count)
        raise ModelError(
            "the graph has a cycle",
            where=f"{where}: node {stuck.name or stuck.op_type!r}",
            why="its input depends on its own output",
            remedy="export the model again; ONNX graphs are acyclic",
        )
