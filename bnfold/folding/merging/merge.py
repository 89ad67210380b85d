"""Merge parallel branches, and linear operators in a row, all over a model."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.folding.carry_out import keep_remainder, write_edits
from bnfold.folding.merging.addends import SIGNS, Addend, plan_addend
from bnfold.folding.merging.branches import Merge, plan_sum
from bnfold.folding.merging.elementwise import ELEMENTWISE, Pair, plan_pair
from bnfold.folding.merging.sequences import Row, plan_sequence
from bnfold.folding.merging.sums import Reader, Removal
from bnfold.folding.selection import Selection
from bnfold.model.edit import Editor
from bnfold.model.facts import Facts
from bnfold.model.uses import is_used
from bnfold.records import Refusal, Step
from bnfold.rules.base import name_of
from bnfold.rules.mul_add import NUMPY_BROADCAST_SINCE

_PRODUCTS = frozenset({"MatMul", "Gemm"})
_IN_A_ROW = _PRODUCTS | {"Conv"}


def merge_linear(facts: Facts, editor: Editor, selection: Selection) -> list[Step]:
    """Make one pass of merges over a model; return what was merged.

    A sum is planned once in a pass: what a merge makes possible is found in the next one.
    """
    return [
        *_merge_rows(facts, editor, selection),
        *merge_constants(facts, editor, selection),
        *_merge_sums(facts, editor, selection),
    ]


def _merge_sums(facts: Facts, editor: Editor, selection: Selection) -> list[Step]:
    steps: list[Step] = []
    if facts.opset() < NUMPY_BROADCAST_SINCE:
        return steps
    reader = Reader(facts, selection)
    for found in reader.sums():
        if not _is_read(found.root):
            continue
        if selection.refuse_site(found.root) is not None:
            continue
        plan = plan_sum(found, reader, facts)
        if not isinstance(plan, Refusal):
            steps.append(carry_out_sum(plan, editor))
    return steps


def _merge_rows(facts: Facts, editor: Editor, selection: Selection) -> list[Step]:
    steps: list[Step] = []
    reader = Reader(facts, selection)
    kinds = _IN_A_ROW if facts.opset() >= NUMPY_BROADCAST_SINCE else _IN_A_ROW - _PRODUCTS
    for node in facts.nodes():
        if node.op_type not in kinds or node.graph is None or not _is_read(node):
            continue
        row = plan_sequence(node, reader, facts, selection)
        if not isinstance(row, Refusal):
            steps.append(carry_out_row(row, editor))
    return steps


def merge_constants(facts: Facts, editor: Editor, selection: Selection) -> list[Step]:
    """Make one constant of two in a row, and write one into the product in front of it.

    A longer row goes on with what came of these.
    """
    steps: list[Step] = []
    if facts.opset() < NUMPY_BROADCAST_SINCE:
        return steps
    reader = Reader(facts, selection)
    for node in facts.nodes():
        if node.graph is None or not _is_read(node):
            continue
        if node.op_type in ELEMENTWISE:
            pair = plan_pair(node, reader, facts, selection)
            if not isinstance(pair, Refusal):
                steps.append(carry_out_pair(pair, facts, editor))
                continue
        if node.op_type in SIGNS:
            addend = plan_addend(node, reader, facts, selection)
            if not isinstance(addend, Refusal):
                steps.append(carry_out_addend(addend, facts, editor))
    return steps


def _is_read(node: ir.Node) -> bool:
    """Return whether anything reads what a node writes.

    Dead code that is in nobody's way stays as it is; where the last node of it went into the
    one before, that would be unread, and would leave with all that is to be written there.
    """
    value = node.outputs[0]
    return is_used(value) or value.is_graph_output()


def carry_out_sum(plan: Merge, editor: Editor) -> Step:
    """Take the terms that leave out of the sum and write them into the one that stays."""
    kept = plan.kept
    leaving = [node for term in plan.gone for node in term.nodes] + list(plan.removal.gone)
    site = tuple(name_of(node) for node in leaving)
    taker = kept.operator or kept.chain[0]
    root = name_of(plan.found.root)
    rule = plan.found.root.op_type
    tensors: tuple[str, ...] = ()
    if plan.remainder is not None:
        taker = plan.remainder.kept[0][0]
        tensors = keep_remainder(kept.chain_as_site(), plan.remainder, editor)
    elif kept.chain and kept.operator is not None:
        editor.bypass(kept.chain, kept.operator.outputs[0], renamed=False)
    _take_out(plan.removal, plan.found.root, kept.place.node, editor)
    written, growth = write_edits(plan.edits, editor)
    return Step(
        rule=rule,
        site=site,
        move="parallel branches",
        routes=((root, name_of(taker)),),
        absorbed_by=(name_of(taker),),
        tensors=(*tensors, *written),
        cloned_bytes=growth,
    )


def _take_out(removal: Removal, root: ir.Node, kept: ir.Node, editor: Editor) -> None:
    for node, lost in removal.losses:
        rest = [value for index, value in enumerate(node.inputs) if index not in lost]
        if len(rest) > 1:
            editor.drop_operands(node, lost)
        elif rest and rest[0] is not None:
            whole = node is root or (len(removal.losses) == 1 and node is kept)
            editor.bypass([node], rest[0], renamed=whole)


def carry_out_row(row: Row, editor: Editor) -> Step:
    """Write two operators as the second of them."""
    data = row.first.inputs[0]
    if data is None:
        message = f"{name_of(row.first)} has no input"
        raise ValueError(message)
    names = (name_of(row.first),)
    rule = row.first.op_type
    editor.read_from(row.second, data)
    editor.drop_nodes([row.first])
    tensors, growth = write_edits(row.edits, editor)
    taker = name_of(row.second)
    return Step(
        rule=rule,
        site=names,
        move="linear behind linear",
        routes=((*names, taker),),
        absorbed_by=(taker,),
        tensors=tensors,
        cloned_bytes=growth,
    )


def carry_out_pair(pair: Pair, facts: Facts, editor: Editor) -> Step:
    """Write two element-wise operators as the second of them."""
    names, taker, rule = (name_of(pair.first),), name_of(pair.second), pair.first.op_type
    editor.bypass([pair.first], pair.data, renamed=False)
    tensors, growth = write_edits((pair.edit,), editor)
    if pair.op_type != pair.second.op_type:
        editor.set_operator(pair.second, pair.op_type)
    facts.forget(pair.second)
    return Step(
        rule=rule,
        site=names,
        move="constant behind constant",
        routes=((*names, taker),),
        absorbed_by=(taker,),
        tensors=tensors,
        cloned_bytes=growth,
    )


def carry_out_addend(plan: Addend, facts: Facts, editor: Editor) -> Step:
    """Write the constant behind a product into the product."""
    names, taker, rule = (name_of(plan.node),), name_of(plan.product), plan.node.op_type
    editor.bypass([plan.node], plan.product.outputs[0], renamed=True)
    tensors, growth = write_edits(plan.edits, editor)
    facts.forget(plan.product)
    return Step(
        rule=rule,
        site=names,
        move="into the addend",
        routes=((*names, taker),),
        absorbed_by=(taker,),
        tensors=tensors,
        cloned_bytes=growth,
    )
