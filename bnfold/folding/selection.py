"""Which rules and nodes a fold may touch: ``--only`` and ``--skip``."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

import onnx_ir as ir

from bnfold.folding.idioms import NO_IDIOMS, Idioms
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules import NO_RULE, RULES
from bnfold.rules.base import (
    Maps,
    Results,
    Rule,
    Source,
    Taken,
    name_of,
    unknown_operator,
    unknown_version,
)


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
        if node in self.idioms.scales:
            why = (
                "it is a scale of a product that is quantised when it runs, all of which"
                " runtimes run as one operator"
            )
            return Refusal(Code.IDIOM, name_of(node), why)
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
    if facts.is_standard(node):
        return RULES.get(node.op_type, NO_RULE)
    why = facts.why_unchecked(node)
    return _Unchecked(why) if why else NO_RULE


def refuse_unruled(node: ir.Node, facts: Facts) -> Refusal | None:
    """Return why no map passes a node, whatever the map, if it has no rule that is asked."""
    rule = rule_of(node, facts)
    if isinstance(rule, _Unchecked):
        return unknown_version(node, rule.why)
    return unknown_operator(node) if rule is NO_RULE else None


class _Unchecked(Rule):
    """A version of an operator that its rule was not checked against."""

    def __init__(self, why: str) -> None:
        """Say what is not known of it."""
        super().__init__()
        self.why = why

    def source(self, node: ir.Node, facts: Facts) -> Source | Refusal:  # noqa: ARG002  contract
        """It may be a map; nobody knows."""
        return unknown_version(node, self.why)

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """No."""
        return unknown_version(node, self.why)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """No."""
        return unknown_version(node, self.why)

    def take_within(self, node: ir.Node, maps: Results, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """No."""
        return unknown_version(node, self.why)
