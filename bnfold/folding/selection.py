"""Which rules and nodes a fold may touch: ``--only`` and ``--skip``."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

import onnx_ir as ir

from bnfold.folding.idioms import NO_IDIOMS, Idioms
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules import NO_RULE, RULES
from bnfold.rules.base import Rule, name_of


@dataclass(frozen=True, slots=True)
class Selection:
    """Patterns over operator kinds and node names (shell wildcards).

    Attributes:
        only: If not empty, only sites that match one of these are moved.
        skip: Nodes that match one of these are neither moved nor written to.
        idioms: Nodes that have to stay for a runtime to recognise what they spell.
    """

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    idioms: Idioms = NO_IDIOMS

    def refuse_site(self, node: ir.Node) -> Refusal | None:
        """Return why this node's map may not be moved, if so."""
        if self.only and not _matches(node, self.only):
            why = f"it matches none of --only {' '.join(self.only)}"
            return Refusal(Code.NOT_SELECTED, name_of(node), why)
        if node in self.idioms.tails:
            why = (
                "it is the tail of a spelled-out normalisation, which runtimes run as one"
                " operator"
            )
            remedy = "--norms moves it all the same"
            return Refusal(Code.IDIOM, name_of(node), why, remedy)
        return self.refuse_touch(node)

    def refuse_touch(self, node: ir.Node) -> Refusal | None:
        """Return why this node may not be changed or passed, if so."""
        if self.skip and _matches(node, self.skip):
            why = f"it matches --skip {' '.join(self.skip)}"
            return Refusal(Code.NOT_SELECTED, name_of(node), why)
        if node in self.idioms.whole:
            why = "it is a part of a spelled-out Gelu, which runtimes run as one operator"
            return Refusal(Code.IDIOM, name_of(node), why)
        return None


def _matches(node: ir.Node, patterns: tuple[str, ...]) -> bool:
    names = (node.op_type, node.name or "")
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def rule_of(node: ir.Node, facts: Facts) -> Rule:
    """Return the rule of a node; operators outside of the specification have none."""
    return RULES.get(node.op_type, NO_RULE) if facts.is_standard(node) else NO_RULE
