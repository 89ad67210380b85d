"""What must be true of the fold of any valid model, whoever drew it.

Either a `BnfoldError` that says why, or a model that the checker accepts, that is equal to the
original in float64, that a second fold leaves alone, and that does not hang on the order in
which nodes and initializers are written down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx

import bnfold
from benchmarks.campaign import truth
from benchmarks.campaign.sketch import TYPES, Case
from bnfold.errors import BnfoldError
from bnfold.model.inference import inferred
from tests.laws.by_runtime import Runtime
from tests.laws.second_opinion import second_opinion

BEYOND = 2.0
"""Bounds of rounding: a right fold stays within one, a wrong one is past two."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What is said of the fold of one model.

    Attributes:
        faults: Which parts of the promise it breaks.
        refused: Who refused the model, and in which words; empty if it was folded.
        steps: How many folds were made.
        compared: For how many sets of inputs both models were evaluated in float64.
        runtime: What ONNX Runtime says; empty if it was not asked.
        folded: The folded model, if anything changed.
    """

    faults: tuple[str, ...] = ()
    refused: str = ""
    steps: int = 0
    compared: int = 0
    runtime: str = ""
    folded: onnx.ModelProto | None = None


FeedsOf = Callable[[int], truth.Feeds]
"""Inputs of a turn."""


def broken(case: Case, seed: int, like: onnx.ModelProto | None = None) -> list[str]:
    """Return which parts of the promise a fold of this model breaks; empty for none."""
    return list(judged(case, seed, like).faults)


def judged(
    case: Case,
    seed: int,
    like: onnx.ModelProto | None = None,
    feeds_of: FeedsOf | None = None,
    runtime: Runtime | None = None,
) -> Judged:
    """Fold a model and say whether the promise holds.

    Args:
        case: The model, and how its inputs are drawn.
        seed: Of the inputs, and of the other order.
        like: A model of the same function, in plainer words; the model itself by default.
        feeds_of: Draws the inputs, where the case does not say how.
        runtime: Asked as well: it runs what it ran before, and gives the same.

    Raises:
        Exception: Whatever the fold raises that is no `BnfoldError`.
    """
    if not is_accepted(case.model):
        return Judged(refused="checker")
    given = case.model.SerializeToString(deterministic=True)
    try:
        result = bnfold.fold(case.model, verify=False, **case.options)
    except BnfoldError as error:
        return Judged(refused=f"bnfold: {error.what}")
    folded = result.to_proto()
    found = []
    if case.model.SerializeToString(deterministic=True) != given:
        found.append("the model that was given is another one now")
        case.model.ParseFromString(given)
    if not is_accepted(folded):
        if not is_accepted(with_branches_taken(case.model)):
            return Judged(refused="checker, of what a branch hides")
        found.append("the checker refuses the folded model")
    found.extend(_told_twice(folded, case))
    found.extend(_told_in_another_order(case, folded, seed))
    steps = len(result.report.steps)
    if not steps and folded.SerializeToString(deterministic=True) == given:
        return Judged(tuple(found))
    draw = feeds_of or (lambda turn: truth.feeds_of(case, turn, seed))
    compared, wrong = _wrong(case, folded, like or case.model, draw)
    said, fault = "", ""
    if runtime is not None:
        said, fault = second_opinion(runtime, case, folded, draw(0))
    found.extend(one for one in (wrong, fault) if one)
    return Judged(tuple(found), "", steps, compared, said, folded)


def is_accepted(model: onnx.ModelProto) -> bool:
    """Return whether onnx's checker accepts a model, its types and shapes included.

    A full check ends the process where a Slice meets a negative size: so that is done apart.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        onnx.checker.check_model(model)
        inferred(copy, data_prop=False, strict=True)
    except Exception:  # noqa: BLE001  it raises errors of several kinds, and of C++
        return False
    return True


def with_branches_taken(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with each If of a constant condition replaced by the branch it takes.

    The checker compares no sizes behind an If whose branches have different ones: it accepts
    models that it refuses as soon as the branch is known.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    values = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    del found.graph.node[:]
    for node in model.graph.node:
        taken = values.get(node.input[0]) if node.op_type == "If" else None
        if taken is None:
            found.graph.node.append(node)
            continue
        name = "then_branch" if taken.item() else "else_branch"
        branch = next(one.g for one in node.attribute if one.name == name)
        found.graph.initializer.extend(branch.initializer)
        found.graph.value_info.extend(branch.value_info)
        found.graph.node.extend(branch.node)
        for result, output in zip(branch.output, node.output, strict=True):
            found.graph.node.add(op_type="Identity", input=[result.name], output=[output])
    return found


def _told_twice(folded: onnx.ModelProto, case: Case) -> Iterator[str]:
    try:
        again = bnfold.fold(folded, verify=False, **case.options)
    except BnfoldError as error:
        yield f"a second fold refuses the first: {error.what}"
        return
    if again.report.steps:
        yield f"a second fold finds {[(step.rule, step.site) for step in again.report.steps]}"
    elif again.to_proto().SerializeToString() != folded.SerializeToString():
        yield "a second fold writes other bytes"


def _told_in_another_order(case: Case, folded: onnx.ModelProto, seed: int) -> Iterator[str]:
    other = reordered(case.model, np.random.default_rng((seed, 41)))
    try:
        changed = bnfold.fold(other, verify=False, **case.options).to_proto()
    except BnfoldError as error:
        yield f"in another order it is refused: {error.what}"
        return
    here, there = _by_direction(operators(folded)), _by_direction(operators(changed))
    if here != there:
        yield f"in another order {dict(there - here)} stay, in this one {dict(here - there)}"


def _by_direction(counts: Counter[str]) -> Counter[str]:
    """Count a Div as a Mul, a Sub as an Add.

    Of two maps behind a third one, either can go into it: which one stays is a tie.
    """
    same = {"Div": "Mul", "Sub": "Add"}
    found: Counter[str] = Counter()
    for kind, often in counts.items():
        found[same.get(kind, kind)] += often
    return found


def operators(model: onnx.ModelProto) -> Counter[str]:
    """Return how often each operator occurs, subgraphs and functions included."""
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    return Counter(node.op_type for body in bodies for node in _nodes(body))


def _nodes(body) -> Iterator[onnx.NodeProto]:
    for node in body:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g.node)


def _wrong(
    case: Case, folded: onnx.ModelProto, like: onnx.ModelProto, feeds_of: FeedsOf
) -> tuple[int, str]:
    """Return for how many sets of inputs both were compared, and what is wrong."""
    before, after = truth.prepared(like), truth.prepared(folded)
    names = truth.written(like, folded)
    for turn in range(2):
        feeds = feeds_of(turn)
        try:
            wanted = truth.run(before, feeds)
        except Exception:  # noqa: BLE001  what nobody computes in float64 cannot be compared
            return turn, ""
        try:
            found = truth.run(after, feeds)
        except Exception as error:  # noqa: BLE001  as above, but it ran before
            return turn, f"the reference runs the original; of the fold it says {error!r}"
        bound = _floored(truth.bounds(after, names, feeds, found), wanted, case.kind)
        far = truth.excess(found, wanted, bound)
        if far > 1.0:
            bound = truth.widened(bound, before, after, feeds, wanted)
            far = truth.excess(found, wanted, bound)
        if far > BEYOND:
            return turn, f"{far:.3g} bounds of rounding off"
    return 2, ""


def _floored(bound: dict[str, float], outputs: truth.Feeds, kind: str) -> dict[str, float]:
    """Return the bounds, half a unit in the last place of the outputs at the least.

    Patterns of rounding are drawn: where all weights count in one number they cancel, and the
    true one need not.
    """
    unit = truth.HALF_ULP[TYPES[kind.split()[-1]]]
    peaks = {
        name: float(np.max(np.abs(one), initial=0.0)) if one.dtype.kind == "f" else 0.0
        for name, one in outputs.items()
    }
    return {name: max(one, unit * peaks[name]) for name, one in bound.items()}


def reordered(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Return the same model with its nodes in another topological order, weights shuffled."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _reorder(copy.graph, rng)
    return copy


def _reorder(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    weights = [graph.initializer[k] for k in rng.permutation(len(graph.initializer))]
    nodes = list(_in_some_order(list(graph.node), rng))
    for field, entries in ((graph.initializer, weights), (graph.node, nodes)):
        kept = [type(one).FromString(one.SerializeToString()) for one in entries]
        del field[:]
        field.extend(kept)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _reorder(attribute.g, rng)


def _in_some_order(
    nodes: list[onnx.NodeProto], rng: np.random.Generator
) -> Iterator[onnx.NodeProto]:
    """Yield nodes as they become ready, each time any one of those that are."""
    writer = {name: k for k, node in enumerate(nodes) for name in node.output if name}
    waits = [{writer[name] for name in _read(node) if name in writer} for node in nodes]
    left = set(range(len(nodes)))
    while left:
        ready = sorted(k for k in left if not waits[k] & left)
        chosen = int(rng.choice(ready))
        left.remove(chosen)
        yield nodes[chosen]


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node reads, and its subgraphs; names of their own may be among them."""
    yield from node.input
    for attribute in node.attribute:
        yield from (one.name for one in attribute.g.output)
        for inner in attribute.g.node:
            yield from _read(inner)
