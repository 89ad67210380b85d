"""Name the node at which a wrong fold parts from the fold that bnfold itself makes.

Two models alone do not always tell where one is wrong: a weight that is off by a factor and a
layer behind it that does not undo the factor look like a right weight and a wrong layer.
Whoever holds the original can fold it again and look where the candidate is another. That
names a node; it never decides anything: a candidate that was folded by other means, or with
other options, is no worse for being another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import onnx_ir as ir

from bnfold.errors import BnfoldError
from bnfold.evidence.proof.channels import channel_of
from bnfold.evidence.proof.contents import Contents, contents_of
from bnfold.evidence.proof.rounding import furthest
from bnfold.folding.api import fold_unchecked
from bnfold.model.graphs import initializer_bytes
from bnfold.records import Charge, Finding, ProofReport

_LARGEST_BYTES: Final = 1 << 29
"""Models beyond are not folded again to name a node: it takes as long as all the rest."""

_FEW: Final = 8
"""Where more nodes differ, the candidate was folded in another way, and that says nothing."""

_HALF_ULPS: Final = 2.0
"""Two roundings of one number to its neighbours may be so far apart."""


_OF_GRAPHS: Final = frozenset({Charge.VALUE, Charge.OUTPUT})
"""What is found by comparing the graphs; all else is about a certificate, and says where."""


class _Suspect(NamedTuple):
    """A node at which a candidate is another, and the channel where it reads other numbers."""

    node: ir.Node
    channel: int | None


def with_names(proof: ProofReport, before: ir.Model, after: ir.Model) -> ProofReport:
    """Return a report whose findings name nodes at which ``after`` is no fold of bnfold's.

    Args:
        proof: What a comparison of the two models found.
        before: The original.
        after: The candidate that was found to be wrong.
    """
    findings = list(proof.findings)
    graphs_part = [one for one in findings if one.charge in _OF_GRAPHS]
    if not graphs_part or initializer_bytes(after) > _LARGEST_BYTES:
        return proof
    suspects = _suspects(before, after)
    if not suspects:
        return proof
    agreed = [one for one in findings if one.node in suspects]
    if agreed:
        # What both ways of looking name comes first: it is what a user is shown.
        rest = [one for one in findings if one.node not in suspects]
        return replace(proof, findings=(*agreed, *rest))
    place = findings.index(graphs_part[0])
    findings[place] = _moved(findings[place], suspects, after)
    return replace(proof, findings=tuple(findings))


def _moved(finding: Finding, suspects: dict[str, _Suspect], after: ir.Model) -> Finding:
    """Name the first suspect on the way to what was found; the first of all if none is."""
    behind = _behind(after, finding.where)
    first = next(iter(suspects.items()))
    name, (node, channel) = next(
        ((name, one) for name, one in suspects.items() if one.node in behind), first
    )
    where = next((value.name for value in node.outputs if value.name), finding.where)
    why = f"{finding.why}; seen at {finding.where!r}, the fold bnfold makes parts here"
    return replace(finding, node=name, where=where, why=why, channel=channel)


def _suspects(before: ir.Model, after: ir.Model) -> dict[str, _Suspect]:
    """Return the candidate's nodes that are not as bnfold makes them, by key; few or none."""
    found = contents_of(after)
    best: dict[str, _Suspect] = {}
    for norms in (False, True):
        try:
            own = fold_unchecked(before, norms=norms).model
        except BnfoldError:
            continue
        suspects = dict(_different(contents_of(own), found, after))
        if suspects and (not best or len(suspects) < len(best)):
            best = suspects
    return best if len(best) <= _FEW else {}


def _different(
    own: Contents, found: Contents, after: ir.Model
) -> Iterator[tuple[str, _Suspect]]:
    values = {
        value
        for name, value in found.stored.items()
        if own.tensors.get(name) != found.tensors[name]
        and _is_another(own.stored.get(name), value)
    }
    for node in after.graph:
        key = found.keys.get(node, "")
        reads = values.intersection(value for value in node.inputs if value is not None)
        if key and (reads or own.nodes.get(key) != found.nodes[key]):
            yield key, _Suspect(node, _channel(own, found, node))
        if reads and all(_is_stored(value) for value in node.inputs if value is not None):
            values.update(node.outputs)  # whoever reads what is computed from it reads it too


def _channel(own: Contents, found: Contents, node: ir.Node) -> int | None:
    """Return the channel in which a tensor that a node reads is furthest from bnfold's own."""
    names = {value: name for name, value in found.stored.items()}
    for slot, value in enumerate(node.inputs):
        name = "" if value is None else names.get(value, "")
        if value is None or own.tensors.get(name, "") == found.tensors.get(name, ""):
            continue
        far = _furthest(own.stored.get(name), value)
        if far is not None:
            shape = tuple(map(int, far[1]))
            place = [int(index) for index in np.unravel_index(far[0], shape)]
            return channel_of(node, slot, shape, place)
    return None


def _furthest(
    own: ir.Value | None, found: ir.Value
) -> tuple[int, tuple[int, ...], float] | None:
    """Return where two tensors are furthest apart, their shape, and by how many half ulps."""
    one, other = (None if own is None else own.const_value), found.const_value
    if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
        return None
    if not one.dtype.is_floating_point():
        return None
    stored = np.asarray(other.numpy())
    far = furthest(stored, np.asarray(one.numpy()).astype(np.float64))
    return None if far is None else (far[0], stored.shape, far[1])


def _is_stored(value: ir.Value) -> bool:
    return value.const_value is not None and not value.is_graph_input()


def _is_another(own: ir.Value | None, found: ir.Value) -> bool:
    """Return whether a tensor has other numbers than rounding of the same ones gives."""
    one, other = (None if own is None else own.const_value), found.const_value
    if one is None or other is None or one.dtype != other.dtype or one.shape != other.shape:
        return True
    if not one.dtype.is_floating_point():
        return True
    far = _furthest(own, found)
    return far is not None and far[2] > _HALF_ULPS


def _behind(model: ir.Model, where: str) -> set[ir.Node]:
    """Return the nodes from which a value is computed."""
    pending = [value for node in model.graph for value in node.outputs if value.name == where]
    found: set[ir.Node] = set()
    while pending:
        node = pending.pop().producer()
        if node is not None and node not in found:
            found.add(node)
            pending.extend(value for value in node.inputs if value is not None)
    return found
