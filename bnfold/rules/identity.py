"""Identity, and Dropout at inference: every map passes."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from bnfold.model.attributes import int_attr
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, Taken, name_of

_IS_TEST_UNTIL: Final = 6
_TRAINING_INPUT: Final = 2


class Identity(Rule):
    """Y = X."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """The map passes up as it is."""
        return Taken(onward={0: maps[0]})

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """The map passes down as it is."""
        return Taken(onward={0: maps[0]})


class Dropout(Identity):
    """Y = X unless it trains (Dropout-1 to -22); the mask does not depend on X."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map passes up at inference."""
        return _training(node, facts) or _on_data(node, maps)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map passes down at inference."""
        return _training(node, facts) or _on_data(node, maps)


def _on_data(node: ir.Node, maps: Maps) -> Taken | Refusal:
    if set(maps) != {0}:
        why = "the map reaches its ratio or its mask, not its data"
        return Refusal(Code.UNKNOWN_OPERATOR, name_of(node), why)
    return Taken(onward={0: maps[0]})


def may_train(node: ir.Node, facts: Facts) -> bool:
    """Return whether a Dropout is not known to be the identity."""
    flag = node.inputs[_TRAINING_INPUT] if len(node.inputs) > _TRAINING_INPUT else None
    if flag is not None:
        constant = facts.constant(flag)
        return isinstance(constant, Refusal) or bool(constant.stored().any())
    return facts.opset() <= _IS_TEST_UNTIL and not int_attr(node, "is_test", 0)


def _training(node: ir.Node, facts: Facts) -> Refusal | None:
    if not may_train(node, facts):
        return None
    why = "its training_mode is not known to be false, so it may drop elements"
    remedy = "export in eval mode, or pass --assume-inference"
    return Refusal(Code.BATCH_STATISTICS, name_of(node), why, remedy)
