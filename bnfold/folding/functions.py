"""Model-local functions: written out where that lets more maps go, left alone elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from bnfold.model.graphs import graphs_of
from bnfold.model.inlining import inline_calls
from bnfold.model.values import rename_new, values_of
from bnfold.model.written_out import nodes_written_out, why_not_written_out
from bnfold.records import FoldReport, Stay, Step

_MOST_TRIALS: Final = 16
"""So many functions are looked at one by one; of more, all are written out or none."""

_MOST_TRIED_NODES: Final = 50_000
"""So many nodes are folded for that, all trials together."""

Fold = Callable[[ir.Model], FoldReport]
_Name = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Written:
    """What was written out, and what a fold of all functions would have left in them.

    Attributes:
        steps: One step that names the functions, if there are any.
        stays: The maps that stay when every function is written out.
        warnings: Why functions could not be looked into.
    """

    steps: tuple[Step, ...] = ()
    stays: tuple[Stay, ...] = ()
    warnings: tuple[str, ...] = ()


def inline_functions(model: ir.Model, fold: Fold) -> Written:
    """Write out the calls of the functions whose bodies a fold gains from.

    Which they are is tried on copies, which share the weights: a function is left alone if as
    many maps go without it.

    Args:
        model: The model, edited in place.
        fold: Folds a model without functions in place, as `fold_in_place` does.
    """
    called = _called(model)
    if not called:
        return Written()
    if why := why_not_written_out(model):
        return _left(called, why)
    chosen = frozenset(called)
    try:
        whole = _trial(model, chosen, fold)
    except (RuntimeError, ValueError) as error:  # onnx_ir's: a pass that does not apply
        return _left(called, str(error.__cause__ or error).splitlines()[0])
    most = _gone(whole)
    if most <= _gone(_trial(model, frozenset(), fold)):
        return Written(stays=whole.stays)
    few = len(called) <= _MOST_TRIALS and (
        len(called) * nodes_written_out(model) <= _MOST_TRIED_NODES
    )
    for name in called if few else ():
        fewer = chosen - {name}
        if _gone(_trial(model, fewer, fold)) >= most:
            chosen = fewer
    _inline(model, chosen)
    written = tuple(sorted(name for _, name, _ in chosen))
    step = Step("function", written, "written out where it is called", (), (), ())
    return Written((step,), whole.stays)


def _left(called: Sequence[_Name], why: str) -> Written:
    names = ", ".join(sorted(name for _, name, _ in called))
    return Written(warnings=(f"maps inside of the functions {names} stay: {why}",))


def _called(model: ir.Model) -> list[_Name]:
    """Return the functions that the model calls, or that those call."""
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    calls = (node.op_identifier() for g in graphs for inner in graphs_of(g) for node in inner)
    return [name for name in dict.fromkeys(calls) if name in model.functions]


def _trial(model: ir.Model, chosen: Set[_Name], fold: Fold) -> FoldReport:
    trial = model.clone()
    _inline(trial, chosen)
    return fold(trial)


def _gone(report: FoldReport) -> int:
    """Return how many nodes of maps a fold removed."""
    return sum(len(step.site) - len(step.left) for step in report.steps)


def _inline(model: ir.Model, chosen: Set[_Name]) -> None:
    if chosen:
        known = frozenset(values_of(model.graph))
        inline_calls(model, lambda function: function.identifier() in chosen)
        rename_new(model.graph, known)
