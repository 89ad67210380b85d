"""Read what was exported in training mode as inference: ``--assume-inference``.

This changes the function, so it is done only when asked for, to the original too before a fold
is compared with it, and it is reported node by node.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from bnfold.folding.selection import Selection
from bnfold.model.edit import Editor
from bnfold.model.facts import Facts
from bnfold.model.graphs import sort_graphs
from bnfold.records import Step
from bnfold.rules import RULES
from bnfold.rules.base import name_of
from bnfold.rules.batch_norm import IS_TEST_UNTIL, TRAINING_MODE_SINCE, normalises_by_batch
from bnfold.rules.identity import may_train

WARNING: Final = (
    "operators exported in training mode were read as inference, as asked: the result is"
    " another function than the file's own, and was compared with the original read so"
)
_SAVED: Final = slice(3, None)
_TRAINING_INPUT: Final = 2


def read_as_inference(model: ir.Model, selection: Selection) -> list[Step]:
    """Make every BatchNormalization and Dropout of ``model`` that trains an inference one."""
    sort_graphs(model)
    facts = Facts(model, checked=RULES)
    editor = Editor(model, facts)
    steps: list[Step] = []
    for node in facts.nodes():
        if not facts.is_standard(node) or selection.refuse_touch(node) is not None:
            continue
        if node.op_type == "BatchNormalization" and _read_batch_norm(node, facts, editor):
            steps.append(_step(node, "read by its running statistics"))
        elif node.op_type == "Dropout" and _read_dropout(node, facts, editor):
            steps.append(_step(node, "read as inference"))
    return steps


def _step(node: ir.Node, move: str) -> Step:
    return Step(node.op_type, (name_of(node),), move, (), (), (), left=(node.op_type,))


def _read_batch_norm(node: ir.Node, facts: Facts, editor: Editor) -> bool:
    """Return whether the node now uses its running statistics; these are then its outputs too.

    The batch statistics saved for a gradient (outputs 3 and 4 before opset 14) have no
    counterpart at inference: a node whose saved ones are read stays as it is.
    """
    if not normalises_by_batch(node, facts) or facts.is_fixed(node.inputs[0]):
        return False  # of a constant, the batch is the weight itself: it is standardised
    if any(value.uses() or value.is_graph_output() for value in node.outputs[_SAVED]):
        return False
    editor.keep_first_output(node, node.inputs[3:5])
    if facts.opset() >= TRAINING_MODE_SINCE:
        editor.set_attribute(node, ir.AttrInt64("training_mode", 0))
    elif facts.opset() <= IS_TEST_UNTIL:
        editor.set_attribute(node, ir.AttrInt64("is_test", 1))
    return True


def _read_dropout(node: ir.Node, facts: Facts, editor: Editor) -> bool:
    if not may_train(node, facts):
        return False
    if len(node.inputs) > _TRAINING_INPUT:
        editor.drop_input(node, _TRAINING_INPUT)
    else:
        editor.set_attribute(node, ir.AttrInt64("is_test", 1))
    return True
