"""Carry out a plan: the only caller of `bnfold.model.edit`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir

from bnfold.folding.compose import Remainder
from bnfold.folding.plan import Plan
from bnfold.folding.sites import Chain
from bnfold.model.constants import Constant
from bnfold.model.edit import Editor
from bnfold.model.facts import Facts
from bnfold.model.graphs import graphs_of
from bnfold.model.quantized import EXACT
from bnfold.records import ChannelMap, Step
from bnfold.rules.base import (
    DropInput,
    Edit,
    ReshapeFirst,
    SetAttribute,
    SetConstant,
    SetOperator,
    SetQuantized,
    name_of,
)


def carry_out(plan: Plan, remainder: Remainder | None, editor: Editor) -> list[Step]:
    """Write a plan into the model and return one step for each chain that left."""
    steps = [_step(plan, chain, remainder) for chain in plan.chains]
    tensors, growth = write_edits(plan.edits, editor)
    steps[0] = replace(steps[0], tensors=tensors, cloned_bytes=growth)
    first = plan.chains[0]
    if remainder is not None:
        keep_remainder(first, remainder, editor)
        return steps
    if len(plan.chains) > 1:
        whole = {c.result: c.source for c in plan.chains if not c.result.is_graph_output()}
        editor.unite_readers(whole)
    for chain in plan.chains:
        same_graph = chain.source.graph is chain.result.graph
        renamed = plan.went_up_whole and same_graph
        editor.bypass(chain.nodes, chain.source, renamed=renamed)
    return steps


def shorten_in_place(chain: Chain, remainder: Remainder, editor: Editor) -> Step:
    """Write a chain in fewer nodes, at its place."""
    kept = tuple(kind for _, kind in remainder.kept)
    absorbed = tuple(name_of(node) for node, _ in remainder.kept)
    tensors = keep_remainder(chain, remainder, editor)
    return Step(
        rule=chain.rule,
        site=chain.names,
        move="composed",
        routes=(),
        absorbed_by=absorbed,
        tensors=tensors,
        left=kept,
        map=_map_of(chain),
    )


def _step(plan: Plan, chain: Chain, remainder: Remainder | None) -> Step:
    return Step(
        rule=chain.rule,
        site=chain.names,
        move=plan.move,
        routes=(*plan.up.routes(chain), *plan.down.routes(chain)),
        absorbed_by=tuple(
            name_of(node) for node in (*plan.up.absorbed_by, *plan.down.absorbed_by)
        ),
        tensors=(),
        left=() if remainder is None else tuple(kind for _, kind in remainder.kept),
        adjusted=tuple(name_of(node) for node in plan.up.adjusted),
        map=_map_of(chain),
    )


def _map_of(chain: Chain) -> ChannelMap:
    affine = chain.affine
    scale, shift = tuple(affine.scale.tolist()), tuple(affine.shift.tolist())
    return ChannelMap(affine.axis, scale, shift)


def write_edits(edits: Iterable[Edit], editor: Editor) -> tuple[tuple[str, ...], int]:
    """Carry out edits; return the names of the tensors written and the growth in bytes."""
    tensors: list[str] = []
    growth = 0
    for edit in edits:
        match edit:
            case SetConstant(node, index, expression, dtype):
                name, grown = editor.set_constant(node, index, expression, dtype)
                tensors.append(name)
                growth += grown
            case SetQuantized(weight, source, parts, axis, rounding):
                own = editor.own_constant(weight.node, weight.index, source)
                written, grown = write_edits(
                    (replace(part, node=own) for part in parts), editor
                )
                tensors.extend(written)
                growth += grown
                if axis is not None:
                    editor.set_attribute(own, ir.AttrInt64("axis", axis))
                if rounding or EXACT in own.meta:
                    own.meta[EXACT] = Constant(weight.expression, weight.dtype)
            case DropInput() | SetAttribute() | SetOperator() | ReshapeFirst():
                _write_node(edit, editor)
    return tuple(tensors), growth


def _write_node(
    edit: DropInput | SetAttribute | SetOperator | ReshapeFirst, editor: Editor
) -> None:
    match edit:
        case DropInput(node, index):
            editor.drop_input(node, index)
        case SetAttribute(node, attribute):
            editor.set_attribute(node, attribute)
        case SetOperator(node, op_type):
            editor.set_operator(node, op_type)
        case ReshapeFirst(node, reshape, columns, shapes):
            for reader in shapes:
                editor.store_shape(reader)
            editor.reshape_first(node, reshape, columns)


def keep_remainder(chain: Chain, remainder: Remainder, editor: Editor) -> tuple[str, ...]:
    """Drop the nodes of a chain that do not stay and rewrite those that do."""
    kept: dict[ir.Node, str] = dict(remainder.kept)
    behind = False
    data = chain.source
    for node in chain.nodes:
        if node in kept:
            if kept[node] == "BatchNormalization":
                editor.read_from(node, data)
            else:
                editor.rewrite(node, kept[node], data)
            data, behind = node.outputs[0], True
        else:
            editor.bypass([node], data, renamed=behind)
    tensors, _ = write_edits(remainder.edits, editor)
    return tensors


def warnings_of(edits: Iterable[Edit]) -> list[str]:
    """Say what is no longer exact: integers that had to be chosen anew."""
    return [
        f"the integer bias of {name_of(edit.weight.node)} was rounded: it is off by up to"
        f" {edit.rounding:.3g}"
        for edit in edits
        if isinstance(edit, SetQuantized) and edit.rounding
    ]


def unrounded(model: ir.Model) -> ir.Model:
    """Return the model with floats where integers were chosen anew: all of it is exact.

    A check compares this; how far the integers are off is known, and reported.
    """
    nodes = (node for graph in graphs_of(model.graph) for node in graph)
    if not any(EXACT in node.meta for node in nodes):
        return model
    copy = model.clone()
    facts = Facts(copy)
    editor = Editor(copy, facts)
    for node in facts.nodes():
        exact = node.meta.get(EXACT)
        if exact is not None:
            editor.store_result(node, exact.expression, exact.dtype)
    return copy
