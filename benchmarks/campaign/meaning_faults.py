"""Faults that leave the nodes of the main graph as they are: what gives them their meaning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import onnx

from benchmarks.campaign.number_faults import Maker
from benchmarks.campaign.subject import Mutant, Subject

_OTHER: Final = {
    "Relu": "Abs",
    "Abs": "Relu",
    "Tanh": "Sigmoid",
    "Sigmoid": "Tanh",
    "Softplus": "Softsign",
    "Max": "Min",
    "Min": "Max",
    "Add": "Sub",
    "Sub": "Add",
    "Mul": "Div",
    "Div": "Mul",
}
"""Operators that take the same inputs, and give something else for most numbers."""
_OLDEST, _NEWEST = 7, 23


def _imports(subject: Subject) -> Mutant | None:
    """Another operator set is imported, in which some operator is another version."""
    model = subject.copy()
    entry = next((one for one in model.opset_import if one.domain in ("", "ai.onnx")), None)
    if entry is None:
        return None
    before = entry.version
    sets = [one for one in range(_OLDEST, _NEWEST + 1) if one != before]
    for other in subject.rng.permutation(sets):
        entry.version = int(other)
        nodes = [one for one in model.graph.node if _since(one, before) != _since(one, other)]
        with suppress(Exception):  # of several kinds: the checker does not take it
            onnx.checker.check_model(model, full_check=True)
            if nodes:
                return Mutant(model, "another operator set", tuple(n.name for n in nodes))
    return None


def _since(node: onnx.NodeProto, version: int) -> int:
    if node.domain not in ("", "ai.onnx"):
        return 0
    try:
        return int(onnx.defs.get_schema(node.op_type, int(version), "").since_version)
    except onnx.defs.SchemaError:
        return -1


def _called(subject: Subject) -> Mutant | None:
    """An operator in a function is another one."""
    model = subject.copy()
    calls = {(one.domain, one.op_type): one.name for one in model.graph.node}
    found = subject.any_of(
        (node, calls[function.domain, function.name])
        for function in model.functions
        if (function.domain, function.name) in calls
        for node in function.node
        if node.op_type in _OTHER and not node.domain
    )
    return _swapped(model, found, "operator of a function")


def _inner(subject: Subject) -> Mutant | None:
    """An operator in a branch or in the body of a loop is another one."""
    model = subject.copy()
    found = subject.any_of(
        (node, outer.name)
        for outer in model.graph.node
        for node in _within(outer)
        if node.op_type in _OTHER and not node.domain
    )
    return _swapped(model, found, "operator of a subgraph")


def _swapped(
    model: onnx.ModelProto, found: tuple[onnx.NodeProto, str] | None, kind: str
) -> Mutant | None:
    if found is None:
        return None
    node, outer = found
    node.op_type = _OTHER[node.op_type]
    return Mutant(model, kind, (outer,))


def _within(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield inner
            yield from _within(inner)


MEANING: Final[dict[str, Maker]] = {"imports": _imports, "called": _called, "inner": _inner}
