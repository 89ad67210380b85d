"""A sequence that is only taken apart again is a Split: exporters write it for torch.split."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.folding.selection import Selection
from bnfold.model.edit import Editor
from bnfold.model.facts import Facts
from bnfold.records import Refusal, Step
from bnfold.rules.base import name_of

_SPLIT_TAKES_SIZES_SINCE: Final = 13


def split_sequences(facts: Facts, editor: Editor, selection: Selection) -> list[Step]:
    """Write SplitToSequence → SequenceAt as Split, where sizes and places are constants."""
    steps: list[Step] = []
    if facts.opset() < _SPLIT_TAKES_SIZES_SINCE:
        return steps
    for node in facts.nodes():
        if node.op_type != "SplitToSequence" or not facts.is_standard(node):
            continue
        readers = _readers(node, facts)
        touched = (node, *readers)
        if not readers or any(selection.refuse_touch(part) for part in touched):
            continue
        names = tuple(name_of(part) for part in touched)
        editor.split_instead(node, readers)
        steps.append(Step("SplitToSequence", names, "is a Split", (), names[:1], ()))
    return steps


def _readers(node: ir.Node, facts: Facts) -> dict[ir.Node, int]:
    """Return which part each reader takes; empty if one does anything else."""
    sizes = facts.constant(node.inputs[1] if len(node.inputs) > 1 else None)
    value = node.outputs[0]
    if isinstance(sizes, Refusal) or len(sizes.shape) != 1 or value.is_graph_output():
        return {}
    count = sizes.shape[0]
    found: dict[ir.Node, int] = {}
    for reader, index in value.uses():
        place = None
        if reader.op_type == "SequenceAt" and index == 0 and reader.graph is node.graph:
            constant = facts.constant(reader.inputs[1])
            if not isinstance(constant, Refusal):
                place = int(np.asarray(constant.stored()).reshape(-1)[0])
        if place is None or not -count <= place < count:
            return {}
        found[reader] = place % count
    return found
