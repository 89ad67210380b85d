"""Is a node one of the versions of its operator that somebody has looked at?

An operator means what the newest of its versions says that is not newer than the operator set
of the model (ONNX IR, "Operator Sets"). A later version may change a default, or add an
attribute or a word: a rule that was written before does not know of it, so it is not asked.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from typing import Final, Protocol

import onnx_ir as ir

from bnfold.model.attribute_kinds import attributes_of

NEWEST: Final = 28
"""The newest operator set whose operators were looked at."""


class Checked(Protocol):
    """Something that says what it was checked against."""

    @property
    def versions(self) -> tuple[int, ...]:
        """The operator sets that brought its versions, ascending, up to the newest."""
        ...

    @property
    def words(self) -> Mapping[str, frozenset[str]]:
        """What attributes that hold a word may say; others may hold anything."""
        ...


def why_unchecked(node: ir.Node, opset: int, checked: Checked) -> str:
    """Say what a rule does not know of a node; empty if it knows all.

    Args:
        node: An operator of the default domain.
        opset: Version of the default operator set.
        checked: What the rule of its operator was checked against.
    """
    if opset > NEWEST:
        return f"operator set {opset} is newer than {NEWEST}, the newest that is known"
    place = bisect.bisect_right(checked.versions, opset)
    if not place:
        return f"{node.op_type} of operator set {opset} is older than the versions known"
    known = attributes_of(node.op_type, opset)
    for name, attribute in node.attributes.items():
        if known is not None and name not in known:
            version = checked.versions[place - 1]
            return f"{node.op_type}-{version} has no attribute {name!r}"
        allowed = checked.words.get(name)
        if allowed is None or attribute.is_ref() or attribute.type != ir.AttributeType.STRING:
            continue
        if attribute.as_string() not in allowed:
            return f"{name}={attribute.as_string()!r} is none of {', '.join(sorted(allowed))}"
    return ""
