"""Model-local functions: which calls which, how deep, and how many nodes that makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import onnx

from bnfold import limits
from bnfold.errors import ModelError
from bnfold.model.attribute_kinds import Arity

Name = tuple[str, str, str]
"""Domain, name and overload: what a function is known by."""

_COUNTED: Final = 10**15
"""Beyond that, numbers of nodes are not told apart."""


@dataclass(frozen=True, slots=True)
class Calls:
    """The functions of a model.

    Attributes:
        functions: By their names.
        nodes: How many nodes the body of each is once all calls are written out.
    """

    functions: Mapping[Name, onnx.FunctionProto]
    nodes: Mapping[Name, int]

    def arity(self, node: onnx.NodeProto) -> Arity | None:
        """Return how many inputs and outputs a call may have; None of other nodes."""
        function = self.functions.get(name_of(node)) if self.functions else None
        if function is None:
            return None
        return Arity((0, len(function.input)), (0, len(function.output)))


def name_of(node: onnx.NodeProto) -> Name:
    """Return what a node calls, if there is such a function."""
    return node.domain, node.op_type, node.overload


def check_calls(proto: onnx.ModelProto, where: str) -> Calls:
    """Refuse functions that call themselves, are there twice, or would be too many nodes.

    The nodes are counted along the calls, nothing is written out: two functions that each call
    the one before twice are 2ⁿ nodes after n of them.

    Raises:
        ModelError: Naming the function.
    """
    functions: dict[Name, onnx.FunctionProto] = {}
    for function in proto.functions:
        name = (function.domain, function.name, function.overload)
        if not function.name or name in functions:
            raise _fault(
                "a function has no name" if not function.name else "a function is there twice",
                where,
                name,
                "a call could mean either" if function.name else "nothing could call it",
            )
        functions[name] = function
    order = _called_first(functions, where)
    nodes: dict[Name, int] = {}
    depths: dict[Name, int] = {}
    for name in order:
        inside = list(_nodes(functions[name].node))
        nodes[name] = _count(inside, nodes)
        depths[name] = 1 + max(
            (depths[one] for node in inside if (one := name_of(node)) in functions), default=0
        )
        _check_depth(name, depths[name], where)
    if functions:
        _check_count(proto.graph, nodes, where)
    return Calls(functions, nodes)


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes and those of their subgraphs; protobuf bounds how deep these are nested."""
    stack = [iter(nodes)]
    while stack:
        node = next(stack[-1], None)
        if node is None:
            stack.pop()
            continue
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                stack.append(iter(attribute.g.node))
            stack.extend(iter(graph.node) for graph in attribute.graphs)


def _count(nodes: Iterable[onnx.NodeProto], known: Mapping[Name, int]) -> int:
    return min(sum(known.get(name_of(node), 1) for node in nodes), _COUNTED)


def _called_first(functions: Mapping[Name, onnx.FunctionProto], where: str) -> list[Name]:
    """Return the functions, each behind those that it calls (depth first, no recursion)."""
    order: dict[Name, None] = {}
    under_way: set[Name] = set()
    for first in functions:
        stack = [first]
        while stack:
            name = stack[-1]
            if name in order:
                stack.pop()
                continue
            called = {name_of(node) for node in _nodes(functions[name].node)}
            waiting = [one for one in called if one in functions and one not in order]
            if not waiting:
                order[stack.pop()] = None
                under_way.discard(name)
                continue
            under_way.add(name)
            if any(one in under_way for one in waiting):
                raise _fault(
                    "a function calls itself", where, name, "written out, it would never end"
                )
            stack.extend(waiting)
    return list(order)


def _check_depth(name: Name, depth: int, where: str) -> None:
    most = limits.current().depth
    if depth > most:
        why = f"calls in calls are {depth} deep, {most} is the most that is followed"
        raise _fault("functions are nested too deep", where, name, why)


def _check_count(graph: onnx.GraphProto, known: Mapping[Name, int], where: str) -> None:
    most = limits.current().nodes
    calls = [node for node in _nodes(graph.node) if name_of(node) in known]
    whole = _count(calls, known)
    if whole > most:
        largest = max(calls, key=lambda node: known[name_of(node)])
        said = str(whole) if whole < _COUNTED else f"{_COUNTED} or more"
        why = f"written out, the calls of functions are {said} nodes, {most} is the most"
        raise _fault(
            "the functions of the model are too large",
            where,
            name_of(largest),
            why,
            "allow more with --max-nodes, or inline them with onnx.inliner before",
        )


def _fault(
    what: str, where: str, name: Name, why: str, remedy: str = "export the model again"
) -> ModelError:
    shown = ".".join(filter(None, name[:2]))
    return ModelError(what, where=f"{where}: function {shown!r}", why=why, remedy=remedy)
