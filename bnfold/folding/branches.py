"""An If whose condition is constant is its branch: put the branch in its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnx_ir as ir

from bnfold.folding.selection import Selection
from bnfold.model.edit import Editor
from bnfold.model.facts import Facts
from bnfold.model.graphs import graphs_of, subgraphs_of
from bnfold.records import Refusal, Step
from bnfold.rules.base import name_of


def inline_constant_branches(
    facts: Facts, editor: Editor, selection: Selection, moved: list[ir.Node]
) -> list[Step]:
    """Replace every If of known outcome by the branch it takes; innermost last.

    The graph afterwards computes the same values; the branch not taken is dropped.

    Args:
        facts: What is known of the model.
        editor: Writes into it.
        selection: What may be folded.
        moved: Nodes that come into another graph are added here, for `name_apart`.
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
        names = tuple(name_of(inner) for inner in branch)
        if not _is_self_contained(branch):
            continue
        name = name_of(node)
        dropped = [graph for graph in subgraphs_of(node) if graph is not branch]
        gone.update(inner for graph in dropped for inner in graphs_of(graph))
        moved.extend(branch)
        editor.inline_branch(node, branch)
        steps.append(Step("If", (name,), "constant condition", (), names, ()))
    return steps


def name_apart(moved: Iterable[ir.Node]) -> None:
    """Name nodes anew that came into a graph which has a node of that name.

    ONNX allows two of one name; ONNX Runtime refuses them in one graph, and takes them in two.
    It is the last thing that is done: the report names nodes as the original does.
    """
    known: dict[ir.Graph, Counter[str]] = {}
    numbers: Counter[str] = Counter()
    for node in moved:
        graph, name = node.graph, node.name or ""
        if not isinstance(graph, ir.Graph) or not name:
            continue
        if graph not in known:
            known[graph] = Counter(one.name or "" for one in graph)
        names = known[graph]
        if names[name] < 2:
            continue
        names[name] -= 1
        while names[node.name or ""]:
            numbers[name] += 1  # of thousands of branches, all numbers below are taken
            node.name = f"{name}_{numbers[name]}"
        names[node.name or ""] += 1


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
