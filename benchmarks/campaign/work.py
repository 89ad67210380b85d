"""One piece of the campaign: a model folded, judged, spoiled, and its certificate forged."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx

import bnfold
from benchmarks.campaign import drawn, forgery, judges, native, packaged, suite, truth
from benchmarks.campaign.mutation import mutants
from benchmarks.campaign.sketch import Case, NoCaseError, named
from benchmarks.campaign.subject import Mutant, Subject
from bnfold.evidence.reference import NoKernelError

BEYOND = 2.0
"""A right fold stays within one bound of rounding; a wrong one is past two, between them
nothing is claimed."""
LEAST_ULPS = 3.0
"""Half ulps by which the largest changed number of a mutant is off: one ulp could be rounding
of the unrounded number to its other neighbour, three half ulps cannot."""
SIZE_LIMIT = 8 << 20
"""Bytes of a model of which mutants are made."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done with one model.

    Attributes:
        source: A family of drawn graphs, ``suite``, ``battery`` or ``packaged``.
        seed: Which of them.
        mutants: How many spoiled folds of it are judged.
        forgeries: How many certificates are forged for them.
        runs: Whether ONNX Runtime is asked too.
    """

    source: str
    seed: int
    mutants: int = 0
    forgeries: int = 0
    runs: bool = False

    @property
    def key(self) -> str:
        """What tells it from others."""
        return f"{self.source}/{self.seed}"


@dataclass(slots=True)
class _Work:
    task: Task
    case: Case
    line: dict[str, Any]
    folded: onnx.ModelProto = field(init=False)
    feeds: list[truth.Feeds] = field(default_factory=list)
    wanted: list[truth.Feeds] = field(default_factory=list)
    bounds: list[Mapping[str, float]] = field(default_factory=list)


def case_of(task: Task) -> tuple[str, Case]:
    """Return the name and the model of a task.

    Raises:
        NoCaseError: If a model of the suite takes no maps.
    """
    if task.source == "suite":
        return suite.case_of(task.seed)
    if task.source.startswith("suite:"):
        return suite.case_of(task.seed, task.source.removeprefix("suite:"))
    if task.source in _AT_HAND:
        return _AT_HAND[task.source](task.seed)
    case = drawn.case_of(task.source, task.seed)
    return task.source, Case(
        named(case.model), case.source, case.kind, case.sizes, case.options, case.feeds
    )


_AT_HAND: Final[Mapping[str, Callable[[int], tuple[str, Case]]]] = {
    "packaged": packaged.case_of,
    "battery": packaged.battery_case,
    "networks": lambda seed: ("networks", packaged.network_of(seed)),
}


def done(task: Task) -> dict[str, Any]:
    """Do a task, and return what it showed as a line of data; never raise."""
    start, used = time.perf_counter(), time.process_time()
    line: dict[str, Any] = {"key": task.key, "source": task.source, "seed": task.seed}
    try:
        _do(task, line)
    except NoCaseError as error:
        line["skipped"] = str(error)
    except NoKernelError as error:  # of the truth: nobody can say what is right
        line["skipped"] = f"no truth: {error}"[:120]
    except Exception as error:  # noqa: BLE001 — the campaign goes on; the line tells it
        line["error"] = f"{type(error).__name__}: {error}"[:300]
    line["seconds"] = round(time.perf_counter() - start, 4)
    line["processor"] = round(time.process_time() - used, 4)
    return line


def _do(task: Task, line: dict[str, Any]) -> None:
    name, case = case_of(task)
    line |= {"name": name, "type": case.kind}
    try:
        onnx.checker.check_model(case.model)
    except onnx.checker.ValidationError as error:
        line["skipped"] = f"no valid model: {error}"[:120]
        return
    done_fold = judges.certified(case.model, case.options)
    if done_fold.result is None:
        line["fold"] = done_fold.said.as_data()
        return
    if not done_fold.result.report.steps:
        line["skipped"] = "nothing folds"
        return
    work = _Work(task, case, line)
    work.folded = done_fold.result.to_proto()
    line["ops"] = sorted({step.rule for step in done_fold.result.report.steps})
    line["absorbed"] = _absorbers(case.model, done_fold.result)
    line["digest"] = hash_of(case.model)
    line["fold"] = done_fold.said.as_data()
    line["excess"] = _excess(work, _absorbing(done_fold.result))
    line["right"] = _right(line["excess"])
    line["native"] = native.opinion(case.model, work.folded, case.kind, work.feeds[0])
    _judge_right(work, done_fold)
    if line["right"] == "right" and case.model.ByteSize() < SIZE_LIMIT:
        _judge_wrong(work, done_fold)


def hash_of(model: onnx.ModelProto) -> str:
    """Return a short digest of a model."""
    import hashlib

    raw = model.SerializeToString(deterministic=True)
    return hashlib.sha256(raw).hexdigest()[:16]


def _absorbers(model: onnx.ModelProto, result: bnfold.FoldResult) -> list[str]:
    kinds = {node.name: node.op_type for node in model.graph.node}
    return sorted({kinds[name] for name in _absorbing(result) if name in kinds})


def _absorbing(result: bnfold.FoldResult) -> set[str]:
    return {name for step in result.report.steps for name in step.absorbed_by}


def _excess(work: _Work, absorbing: set[str]) -> float | None:
    """Return how far the fold is off, in bounds of rounding; None if it cannot be told.

    What is written may be rounded to what was there before: all that an absorbing node reads
    counts as written.
    """
    case = work.case
    before, after = truth.prepared(case.model), truth.prepared(work.folded)
    names = truth.written(case.model, work.folded)
    names |= truth.weights_of(work.folded, absorbing)
    worst = 0.0
    for turn in range(2):
        feeds = truth.feeds_of(case, turn, work.task.seed)
        wanted, found = truth.run(before, feeds), truth.run(after, feeds)
        bound = truth.bounds(after, names, feeds, found)
        far = truth.excess(found, wanted, bound)
        if far > 1.0:
            bound = truth.widened(bound, before, after, feeds, wanted)
            far = truth.excess(found, wanted, bound)
        worst = max(worst, far)
        work.feeds.append(feeds)
        work.wanted.append(found)
        work.bounds.append(bound)
    return float(worst)


def _right(excess: float | None) -> str:
    if excess is None:
        return "unknown"
    if excess <= 1.0:
        return "right"
    return "wrong" if excess > BEYOND else "unclear"


def _judge_right(work: _Work, done_fold: judges.Folded) -> None:
    model, line = work.case.model, work.line
    said: dict[str, Any] = {}
    if done_fold.certificate is not None:
        said["certificate"] = judges.verified(
            model, work.folded, done_fold.certificate
        ).as_data()
    said["alone"] = judges.verified(model, work.folded).as_data()
    said["no refold"] = judges.verified(model, work.folded, refold=False).as_data()
    if work.task.runs:
        if done_fold.certificate is not None:
            said["files"] = judges.from_files(
                model, work.folded, done_fold.certificate
            ).as_data()
        said["run"] = judges.verified(model, work.folded, run=True).as_data()
        said["check"] = judges.checked(model, work.case.options).as_data()
    line["said"] = said


# ---------------------------------------------------------------------- spoiled folds


def _judge_wrong(work: _Work, done_fold: judges.Folded) -> None:
    task, line = work.task, work.line
    assert done_fold.result is not None
    rng = np.random.default_rng((task.seed, 91, len(task.source)))
    subject = Subject(work.case.model, work.folded, rng)
    dropped: Counter[str] = Counter()
    claim = done_fold.result.certificate
    line["mutants"], line["forged"] = [], []
    wanted = max(task.mutants, 1 if task.forgeries else 0)
    for mutant in mutants(subject):
        if len(line["mutants"]) >= wanted:
            break
        excess, why = _shown(work, mutant)
        if why:
            dropped[why] += 1
            continue
        relations = () if claim is None else claim.values
        accused = forgery.Accused(work.case.model, mutant, done_fold.result, relations)
        line["mutants"].append(
            _convicted(work, mutant, excess, done_fold.certificate, accused)
        )
        if task.forgeries and not line["forged"] and excess > BEYOND:
            line["forged"] = _forgeries(work, accused, done_fold.certificate, rng)
    line["dropped"] = dict(dropped)


def _shown(work: _Work, mutant: Mutant) -> tuple[float, str]:
    """Return how far a candidate is off, and why it is no mutant if it is none."""
    if mutant.half_ulps < LEAST_ULPS:
        return 0.0, "within rounding of what is stored"
    try:
        onnx.checker.check_model(mutant.model)
        model = truth.prepared(mutant.model)
        results = [truth.run(model, feeds) for feeds in work.feeds]
    except Exception:  # noqa: BLE001 — whatever it is, it is no model that can be run
        return 0.0, "no model that can be run"
    least = max(
        truth.excess(found, honest, {k: truth.LEAST * _size(v) for k, v in honest.items()})
        for found, honest in zip(results, work.wanted, strict=True)
    )
    if least <= 1.0:
        return 0.0, "the same outputs in float64"
    triples = zip(results, work.wanted, work.bounds, strict=True)
    return max(truth.excess(found, honest, bound) for found, honest, bound in triples), ""


def _size(array: truth.Array) -> float:
    finite = np.abs(array[np.isfinite(array)]) if array.dtype.kind == "f" else array[:0]
    return float(np.max(finite, initial=1e-300))


def _convicted(
    work: _Work,
    mutant: Mutant,
    excess: float,
    certificate: str | None,
    accused: forgery.Accused,
) -> dict[str, Any]:
    model = work.case.model
    said: dict[str, Any] = {}
    if certificate is not None:
        said["certificate"] = judges.verified(model, mutant.model, certificate)
    said["alone"] = judges.verified(model, mutant.model)
    said["no refold"] = judges.verified(model, mutant.model, refold=False)
    said["rewritten"] = _against(model, mutant.model, accused)
    if work.task.runs and not work.line["mutants"]:  # a run takes seconds: of the first only
        said["run"] = judges.verified(model, mutant.model, run=True)
    names = {key: _named(mutant, one.node) for key, one in said.items() if one.node}
    return {
        "kind": mutant.kind,
        "nodes": mutant.nodes,
        "tensors": mutant.tensors,
        "half_ulps": float(mutant.half_ulps),
        "excess": float(excess),
        "said": {key: one.as_data() for key, one in said.items()},
        "node": names,
    }


def _named(mutant: Mutant, name: str) -> str:
    """Return whether a name is right, that of a node next to the right one, or another."""
    if name in mutant.nodes:
        return "right"
    nodes = mutant.model.graph.node
    wrong = [node for node in nodes if node.name in mutant.nodes]
    made = {one for node in wrong for one in node.output}
    read = {one for node in wrong for one in node.input}
    for node in nodes:
        if node.name == name and (made & set(node.input) or read & set(node.output)):
            return "next to it"
    return "another"


def _against(
    model: onnx.ModelProto, spoiled: onnx.ModelProto, accused: forgery.Accused
) -> judges.Said:
    try:
        text = forgery.rewritten(accused)
    except Exception as error:  # noqa: BLE001 — nothing was forged, so nothing can pass
        return judges.Said(judges.REFUSED, f"cannot be forged: {error!r}"[:200])
    return judges.verified(model, spoiled, text)


def _forgeries(
    work: _Work, accused: forgery.Accused, certificate: str | None, rng: np.random.Generator
) -> list[dict[str, Any]]:
    made = []
    for _ in range(work.task.forgeries):
        writer = str(rng.choice(list(forgery.WRITERS)))
        edit = str(rng.choice([*forgery.EDITS, "truncated", "none", "none"]))
        what = f"{writer}; {edit}"
        try:
            chosen = None if edit == "none" else edit
            text = forgery.forged(accused, writer, chosen, rng)
        except Exception as error:  # noqa: BLE001 — what cannot be written cannot be shown
            made.append({"what": what, "unwritten": repr(error)[:120]})
            continue
        said = judges.verified(accused.original, accused.mutant.model, text)
        made.append({"what": what, "kind": accused.mutant.kind, "said": said.as_data()})
    if certificate is not None:
        made.extend(_dressed(work, accused, rng))
    return made


def _dressed(
    work: _Work, accused: forgery.Accused, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Fold a network with other numbers, and dress its certificate as this one's."""
    other = onnx.ModelProto()
    other.CopyFrom(accused.original)
    for tensor in other.graph.initializer:
        if tensor.data_type in truth.HALF_ULP:
            array = onnx.numpy_helper.to_array(tensor)
            wide = array.astype(np.float64) * rng.uniform(0.5, 3.0, array.shape)
            fresh = onnx.numpy_helper.from_array(wide.astype(array.dtype), tensor.name)
            tensor.CopyFrom(fresh)
    theirs = judges.certified(other, work.case.options)
    if theirs.certificate is None or theirs.result is None:
        return
    spoiled = Mutant(theirs.result.to_proto(), "another network's fold", ())
    excess, why = _shown(work, spoiled)
    if why or excess <= BEYOND:
        return
    wrong = forgery.Accused(accused.original, spoiled, theirs.result)
    text = forgery.dressed(wrong, theirs.certificate)
    said = judges.verified(accused.original, spoiled.model, text).as_data()
    yield {"what": "another network's", "kind": spoiled.kind, "said": said}
