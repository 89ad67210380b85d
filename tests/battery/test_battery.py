"""Every graph of the battery: folded, and judged against what it was."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
import pytest

import bnfold
from tests.battery import judge
from tests.battery.cases import ALL
from tests.battery.graphs import Case
from tests.battery.refused import REFUSED
from tests.folding.picturing import check_pictures, with_pictures
from tests.reference64 import run64

INSIDE = sorted(ALL, key=lambda case: not case.ort)
"""Those that ONNX Runtime may have first: so a graph has the same place in every list, and
pytest runs all tests of a graph one after another, which need one fold of it between them."""
NAMED = [pytest.param(case, id=case.name) for case in INSIDE]
RUN = [param for param in NAMED if param.values[0].ort]


@dataclass(frozen=True)
class Folded:
    """A graph, what was made of it, and the model that was given to be folded."""

    case: Case
    original: onnx.ModelProto
    given: onnx.ModelProto
    result: bnfold.FoldResult
    proto: onnx.ModelProto


@pytest.fixture(scope="module", params=NAMED)
def folded(request: pytest.FixtureRequest) -> Folded:
    case: Case = request.param
    original, given = case.build(), case.build()
    result = bnfold.fold(given, verify=False)
    return Folded(case, original, given, result, result.to_proto())


def test_names_are_unique():
    assert max(Counter(case.name for case in ALL).values()) == 1


def test_a_fold_keeps_the_laws(folded):
    """One test for all of them: the battery is most of what there is to collect and report."""
    is_valid(folded)
    has_the_same_interface(folded)
    left_the_input_alone(folded)
    is_never_dearer_and_folds_what_it_should(folded)
    is_untouched_where_nothing_may_change(folded)
    assert judge.wrong_outputs(folded.original, folded.proto) == []


def is_valid(folded: Folded) -> None:
    assert judge.newly_invalid(folded.original, folded.proto) == ""
    assert judge.duplicate_names(folded.proto) == []
    assert judge.foul_numbers(folded.original, folded.proto) == []


def has_the_same_interface(folded: Folded) -> None:
    original, result = folded.original, folded.proto
    assert judge.interface(result) == judge.interface(original)
    kept, wanted = judge.default_values(result), judge.default_values(original)
    assert {name: kept.get(name) for name in wanted} == wanted
    assert result.ir_version == original.ir_version
    assert list(result.opset_import) == list(original.opset_import)
    assert [f for f in original.functions if f in result.functions] == list(result.functions)


def left_the_input_alone(folded: Folded) -> None:
    fresh = folded.original.SerializeToString(deterministic=True)
    assert folded.given.SerializeToString(deterministic=True) == fresh


def is_never_dearer_and_folds_what_it_should(folded: Folded) -> None:
    case, report = folded.case, folded.result.report
    before, left = judge.affine_count(folded.original), judge.affine_count(folded.proto)
    assert left <= before
    assert judge.node_count(folded.proto) <= judge.node_count(folded.original)
    if not report.steps:
        assert left == before
    if case.scope == "issue2" and case.sites_left is not None:
        why = [(s.site, [(str(r.code), r.why) for r in s.refusals]) for s in report.stays]
        assert left <= case.sites_left, why
        if case.foldable:
            assert left < before, why
    if case.untouched:
        assert len(report.stays) >= min(before, 1)


def is_untouched_where_nothing_may_change(folded: Folded) -> None:
    if folded.case.untouched:
        assert folded.result.report.steps == ()
        assert folded.proto.SerializeToString(deterministic=True) == (
            folded.original.SerializeToString(deterministic=True)
        )


def test_every_step_has_a_picture(folded):
    check_pictures(with_pictures(folded.original, folded.result))


def are_those_counted() -> bool:
    """Whether this is the version that the refused graphs were counted with."""
    runtime = pytest.importorskip("tests.battery.runtime")
    return runtime.ort.__version__.startswith("1.32.")


def skip_if_refused(case: Case, why: str) -> None:
    """A graph that the runtime ran when these were counted must not be passed over."""
    assert case.name in REFUSED or not are_those_counted(), why
    pytest.skip("the runtime does not run the original")


def test_as_many_graphs_as_were_counted_are_refused_by_the_runtime():
    runtime = pytest.importorskip("tests.battery.runtime")
    cases = {case.name: case.build() for case in ALL if case.ort and case.name in REFUSED}
    assert len(cases) == len(REFUSED) == 44
    if are_those_counted():
        assert all(runtime.complaint(m, judge.inputs_of(m, 0)) for m in cases.values())


@pytest.mark.parametrize("folded", RUN, indirect=True, scope="module")
def test_the_runtime_still_runs_it_and_agrees_with_the_reference(folded):
    """Tests the judge, too: its evaluator and the runtime read the original the same way."""
    runtime = pytest.importorskip("tests.battery.runtime")
    original = folded.original
    feeds = judge.inputs_of(original, 0)
    if why := runtime.complaint(original, feeds):
        skip_if_refused(folded.case, why)
    assert runtime.complaint(folded.proto, feeds) == ""
    feeds = judge.inputs_of(original, 1)
    got, why = runtime.outputs(original, feeds, optimised=False)
    assert why == ""
    with np.errstate(all="ignore"):
        wanted = run64(original, feeds, judge.foreign)
    coarse = any(t.data_type in {10, 16} for t in judge.tensors(original))
    for name, value in wanted.items():
        theirs = np.asarray(got[name], np.float64)
        if value.dtype.kind != "f" or not np.all(np.isfinite(value + theirs)):
            continue
        size = np.max(np.abs(value), initial=1e-30)
        gap = judge.largest(theirs, value)
        assert gap <= (2e-2 if coarse else 2e-4) * size
