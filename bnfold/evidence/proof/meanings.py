"""What gives a node its meaning beside itself: the version of its operator, or a function.

A Softmax of operator set 11 normalises over all axes from its own on, one of set 13 over its
own axis alone: the same node, byte for byte, in models that import other sets. A node that
calls a function of the model is what that function is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TypeAlias

import onnx
import onnx_ir as ir

from bnfold.model.graphs import graphs_of, subgraphs_of

_Kind: TypeAlias = tuple[str, str, str]
"""Domain, operator and overload."""


@dataclass(slots=True)
class Meanings:
    """Says what the nodes of a model mean, in words that are equal where meanings are."""

    model: ir.Model
    _known: dict[_Kind, str] = field(default_factory=dict)

    def of(self, node: ir.Node) -> str:
        """Return the meaning of a node, and of the nodes of its subgraphs."""
        found = self._of_kind(node.op_identifier())
        inner = {
            f"{one.op_identifier()} {self._of_kind(one.op_identifier())}"
            for subgraph in subgraphs_of(node)
            for graph in graphs_of(subgraph)
            for one in graph
        }
        return "\n".join((found, *sorted(inner))) if inner else found

    def _of_kind(self, kind: _Kind) -> str:
        found = self._known.get(kind)
        if found is None:
            self._known[kind] = "a function of itself"  # no model that calls itself is read
            found = self._known[kind] = self._function(kind) or self._version(kind)
        return found

    def _version(self, kind: _Kind) -> str:
        """Return since when the operator is what it is; the set that is imported at worst."""
        domain, operator, _ = kind
        version = self.model.opset_imports.get(domain, 0)
        try:
            return f"since {onnx.defs.get_schema(operator, version, domain).since_version}"
        except onnx.defs.SchemaError:
            return f"of set {version}"

    def _function(self, kind: _Kind) -> str:
        """Return the digest of a function, and of those that it calls; empty if it is none."""
        function = self.model.functions.get(kind)
        if function is None:
            return ""
        text = ir.serde.serialize_function(function).SerializeToString(deterministic=True)
        whole = hashlib.sha256(text)
        called = {
            node.op_identifier()
            for graph in graphs_of(function.graph)
            for node in graph
            if node.op_identifier() in self.model.functions
        }
        for one in sorted(called):
            whole.update(f"\n{one} {self._of_kind(one)}".encode())
        return whole.hexdigest()
