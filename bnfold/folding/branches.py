"""An If whose condition is constant is its branch: put the branch in its place."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.folding.selection import Selection
from bnfold.model.edit import Editor
from bnfold.model.facts import Facts
from bnfold.model.graphs import graphs_of, subgraphs_of
from bnfold.records import Refusal, Step
from bnfold.rules.base import name_of


def inline_constant_branches(facts: Facts, editor: Editor, selection: Selection) -> list[Step]:
    """Replace every If of known outcome by the branch it takes; innermost last.

    The graph afterwards computes the same values; the branch not taken is dropped.
    """
    steps: list[Step] = []
    gone: set[ir.Graph] = set()
    for node in facts.nodes():
        # one that only a dropped branch or a dropped node read has left its graph
        if node.op_type != "If" or node.graph is None or node.graph in gone:
            continue
        branch = _known_branch(node, facts)
        if branch is None or selection.refuse_touch(node) is not None:
            continue
        names = tuple(name_of(inner) for inner in branch)  # the original's, not new ones
        if not _is_self_contained(branch):
            continue
        name = name_of(node)
        dropped = [graph for graph in subgraphs_of(node) if graph is not branch]
        gone.update(inner for graph in dropped for inner in graphs_of(graph))
        editor.inline_branch(node, branch)
        steps.append(Step("If", (name,), "constant condition", (), names, ()))
    return steps


def _known_branch(node: ir.Node, facts: Facts) -> ir.Graph | None:
    if not facts.is_standard(node):
        return None
    condition = facts.constant(node.inputs[0])
    if isinstance(condition, Refusal):
        return None
    # a bool hangs on comparisons, which read the graph's own rounded numbers
    taken = "then_branch" if bool(condition.stored().reshape(-1)[0]) else "else_branch"
    attribute = node.attributes.get(taken)
    return None if attribute is None or attribute.is_ref() else attribute.as_graph()


def _is_self_contained(branch: ir.Graph) -> bool:
    """Return whether every result is written by a node of the branch."""
    written = {value for node in branch for value in node.outputs}
    results = list(branch.outputs)
    return all(value in written for value in results) and len(set(results)) == len(results)
