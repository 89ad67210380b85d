"""One node with its evaluated inputs: all that a kernel sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx_ir as ir

from bnfold.evidence.reference.arrays import Array, NoKernelError
from bnfold.model.attributes import float_attr, int_attr, ints_attr, string_attr


@dataclass(frozen=True, slots=True)
class Call:
    """One node with its evaluated inputs.

    Attributes:
        node: The node; its attributes are values, never references.
        x: The inputs; absent ones are None.
        opset: Version of the operator set that the node's domain is read in.
    """

    node: ir.Node
    x: Sequence[Any]
    opset: int

    def maybe(self, index: int) -> Any:
        """Return an input, or None when it is absent."""
        return self.x[index] if index < len(self.x) else None

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        return int_attr(self.node, name, default)

    def number(self, name: str, default: float) -> float:
        """Return a float attribute."""
        return float_attr(self.node, name, default)

    def integers(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        """Return a list of integers."""
        return ints_attr(self.node, name, default)

    def text(self, name: str, default: str) -> str:
        """Return a string attribute."""
        return string_attr(self.node, name, default)

    def has(self, name: str) -> bool:
        """Return whether the attribute is there."""
        return name in self.node.attributes

    def outputs(self, *results: Array) -> tuple[Array, ...]:
        """Return as many results as the node has outputs."""
        return results[: len(self.node.outputs)]

    def no_kernel(self, why: str) -> NoKernelError:
        """Return the error that says that this form of the operator is not supported."""
        return NoKernelError(f"{name_of(self.node)}: {why}")


Kernel: TypeAlias = Callable[[Call], Any]


def name_of(node: ir.Node) -> str:
    """Return the operator with its domain, unless that is the default one."""
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type
