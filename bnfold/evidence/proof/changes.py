"""What differs between two models, part by part: nothing is left out, nothing is guessed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from bnfold.evidence.proof.contents import Contents


class Kind(StrEnum):
    """What happened to a part."""

    REMOVED = "removed"
    CHANGED = "changed"
    ADDED = "added"
    KEPT = "kept"
    """Of a tensor: other numbers, which its type rounds to those that it had before."""


@dataclass(frozen=True, slots=True)
class Change:
    """One node or tensor that is not the same in both models.

    Attributes:
        kind: What happened to it.
        name: Name of the tensor, or key of the node.
        before: Digest in the original; empty if it was not there.
        after: Digest in the folded model; empty if it is not there any more.
        operator: Of a node, what it is now, or was.
    """

    kind: Kind
    name: str
    before: str
    after: str
    operator: str = ""


def changed_nodes(original: Contents, folded: Contents) -> tuple[Change, ...]:
    """Return the nodes of the main graph that were removed, changed or added."""
    operators = {**original.operators, **folded.operators}
    return tuple(_compared(original.nodes, folded.nodes, operators))


def changed_tensors(original: Contents, folded: Contents) -> tuple[Change, ...]:
    """Return the initializers of the main graph that were removed, changed or added."""
    return tuple(_compared(original.tensors, folded.tensors, {}))


def kept_tensors(
    original: Contents, folded: Contents, names: Iterable[str]
) -> tuple[Change, ...]:
    """Return which of these tensors are the same in both models, as changes."""
    digests = [(name, original.tensors.get(name), folded.tensors.get(name)) for name in names]
    return tuple(
        Change(Kind.KEPT, name, old, new) for name, old, new in digests if old and old == new
    )


def _compared(
    before: Mapping[str, str], after: Mapping[str, str], operators: Mapping[str, str]
) -> Iterator[Change]:
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name, ""), after.get(name, "")
        if old != new:
            kind = Kind.ADDED if not old else Kind.CHANGED if new else Kind.REMOVED
            yield Change(kind, name, old, new, operators.get(name, ""))
