"""Gelus that are spelled out, put in the order that runtimes know.

torch's dynamo exporter writes ``x · (½ · (1 + erf(x / √2)))``, which ONNX Runtime 1.32 does
not recognise; it runs ``(x · (1 + erf(x / √2))) · ½`` as one operator. The Gelu of opset 20 is
not written: its √2 is exact, the stored one is rounded, so that would be another function.
"""

from __future__ import annotations

from bnfold.folding.idioms import Gelu, gelu_at
from bnfold.folding.selection import Selection
from bnfold.model.edit import Editor
from bnfold.model.facts import Facts
from bnfold.records import Step
from bnfold.rules.base import name_of


def order_gelus(facts: Facts, editor: Editor, selection: Selection) -> list[Step]:
    """Let ``x · (g · ½)`` be ``(g · x) · ½`` in every Gelu of a model."""
    steps: list[Step] = []
    for node in facts.nodes():
        if node.op_type != "Erf" or node.graph is None or not facts.is_standard(node):
            continue
        gelu = gelu_at(node, facts)
        if gelu is None or any(selection.refuse_site(part) for part in gelu.nodes):
            continue
        if _reorder(gelu, facts, editor):
            names = tuple(name_of(part) for part in (gelu.half, gelu.product))
            steps.append(Step("Gelu", names, "reordered", (), names, (), ("Mul", "Mul")))
    return steps


def _reorder(gelu: Gelu, facts: Facts, editor: Editor) -> bool:
    """Let x and the half change places, if the half stands beside x."""
    half, product = gelu.half, gelu.product
    beside = half.outputs[0] in product.inputs and gelu.data not in half.inputs
    if not beside or half.op_type != "Mul" or gelu.data not in product.inputs:
        return False
    constant = next(iter(facts.constant_inputs(half)))
    editor.exchange_inputs(half, constant, product, list(product.inputs).index(gelu.data))
    return True
