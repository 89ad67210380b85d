"""Every graph of the battery: folded, and judged against what it was."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

import bnfold
from tests.battery import judge
from tests.battery.cases import ALL
from tests.battery.graphs import Case
from tests.battery.refused import REFUSED
from tests.reference64 import run64

NAMED = [pytest.param(case, id=case.name) for case in ALL]
ISSUE2 = [pytest.param(c, id=c.name) for c in ALL if c.scope == "issue2"]
_given: dict[str, onnx.ModelProto] = {}
_folded: dict[str, tuple[onnx.ModelProto, onnx.ModelProto, bnfold.FoldResult]] = {}


def folded(case: Case) -> tuple[onnx.ModelProto, onnx.ModelProto, bnfold.FoldResult]:
    """The original, the folded model and the result; folded once per case."""
    if case.name not in _folded:
        original = case.build()
        given = _given[case.name] = case.build()
        result = bnfold.fold(given, verify=False)
        _folded[case.name] = (original, result.to_proto(), result)
    return _folded[case.name]


def test_names_are_unique():
    assert max(Counter(case.name for case in ALL).values()) == 1


@pytest.mark.parametrize("case", NAMED)
def test_same_function(case):
    original, result, _ = folded(case)
    assert judge.wrong_outputs(original, result) == []


@pytest.mark.parametrize("case", NAMED)
def test_still_valid(case):
    original, result, _ = folded(case)
    assert judge.newly_invalid(original, result) == ""
    assert judge.duplicate_names(result) == []
    assert judge.foul_numbers(original, result) == []


@pytest.mark.parametrize("case", NAMED)
def test_interface_stays(case):
    original, result, _ = folded(case)
    assert judge.interface(result) == judge.interface(original)
    kept = judge.default_values(result)
    assert {name: kept.get(name) for name in judge.default_values(original)} == (
        judge.default_values(original)
    )
    assert result.ir_version == original.ir_version
    assert list(result.opset_import) == list(original.opset_import)
    assert [f for f in original.functions if f in result.functions] == list(result.functions)


@pytest.mark.parametrize("case", NAMED)
def test_input_model_is_not_modified(case):
    folded(case)
    fresh = case.build().SerializeToString(deterministic=True)
    assert _given[case.name].SerializeToString(deterministic=True) == fresh


@pytest.mark.parametrize("case", NAMED)
def test_never_dearer(case):
    original, result, report = folded(case)
    assert judge.affine_count(result) <= judge.affine_count(original)
    assert judge.node_count(result) <= judge.node_count(original)
    if not report.report.steps:
        assert judge.affine_count(result) == judge.affine_count(original)


@pytest.mark.parametrize("case", ISSUE2)
def test_folds_what_it_should(case):
    original, result, report = folded(case)
    left = judge.affine_count(result)
    why = [(s.site, [(str(r.code), r.why) for r in s.refusals]) for s in report.report.stays]
    if case.sites_left is not None:
        assert left <= case.sites_left, why
        if case.foldable:
            assert left < judge.affine_count(original), why


@pytest.mark.parametrize("case", [c for c in NAMED if c.values[0].untouched])
def test_untouched_means_untouched(case):
    original, result, report = folded(case)
    assert report.report.steps == ()
    left = judge.affine_count(original)
    assert len(report.report.stays) >= min(left, 1)
    assert result.SerializeToString(deterministic=True) == (
        original.SerializeToString(deterministic=True)
    )


def are_those_counted() -> bool:
    """Whether this is the version that the refused graphs were counted with."""
    runtime = pytest.importorskip("tests.battery.runtime")
    return runtime.ort.__version__.startswith("1.32.")


def skip_if_refused(case: Case, why: str) -> None:
    """A graph that the runtime ran when these were counted must not be passed over."""
    assert case.name in REFUSED or not are_those_counted(), why
    pytest.skip("the runtime does not run the original")


def test_as_many_graphs_as_were_counted_are_refused_by_the_runtime():
    """Each is skipped in two tests: 88 in all."""
    runtime = pytest.importorskip("tests.battery.runtime")
    cases = {case.name: case.build() for case in ALL if case.ort and case.name in REFUSED}
    assert len(cases) == len(REFUSED) == 44
    if are_those_counted():
        assert all(runtime.complaint(m, judge.inputs_of(m, 0)) for m in cases.values())


@pytest.mark.parametrize("case", [c for c in NAMED if c.values[0].ort])
def test_the_runtime_still_runs_it(case):
    runtime = pytest.importorskip("tests.battery.runtime")
    original, result, _ = folded(case)
    feeds = judge.inputs_of(original, 0)
    if why := runtime.complaint(original, feeds):
        skip_if_refused(case, why)
    assert runtime.complaint(result, feeds) == ""


@pytest.mark.parametrize("case", [c for c in NAMED if c.values[0].ort])
def test_the_reference_agrees_with_the_runtime(case):
    """Tests the judge: its evaluator and the runtime read the original the same way."""
    runtime = pytest.importorskip("tests.battery.runtime")
    original = case.build()
    feeds = judge.inputs_of(original, 1)
    got, complaint = runtime.outputs(original, feeds, optimised=False)
    if complaint:
        skip_if_refused(case, complaint)
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
