"""The law of the fold, over drawn models: same function, same interface, never dearer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from onnx import TensorProto

import bnfold
from tests.battery import judge
from tests.strategies import models


@settings(max_examples=2 * settings().max_examples)
@given(models())
def test_folding_keeps_the_laws(model):
    """One fold of each model is asked for all of them."""
    result = bnfold.fold(model, verify=False)
    folded = result.to_proto()
    assert judge.wrong_outputs(model, folded) == []
    keeps_the_interface_and_never_costs_more(model, folded)
    accounts_for_every_map_that_went(model, folded, result.report.steps)
    again = bnfold.fold(folded, verify=False)
    assert again.report.steps == ()
    assert again.to_proto().SerializeToString() == folded.SerializeToString()


def keeps_the_interface_and_never_costs_more(model, folded):
    assert judge.newly_invalid(model, folded) == ""
    assert judge.interface(folded) == judge.interface(model)
    assert judge.affine_count(folded) <= judge.affine_count(model)
    assert judge.node_count(folded) <= judge.node_count(model)
    assert judge.duplicate_names(folded) == []


def accounts_for_every_map_that_went(model, folded, steps):
    gone = judge.affine_count(model) - judge.affine_count(folded)
    left = {step: [kind for kind in step.left if kind != "Identity"] for step in steps}
    named = sum(len(step.site) - len(kinds) for step, kinds in left.items())
    assert gone <= named
    # A BatchNormalization behind a MatMul may become an Add: a step, and as many nodes.
    changed_kind = any(step.left for step in steps)
    assert changed_kind or (gone > 0) == bool(steps)


@given(models())
def test_moving_norms_keeps_the_function_and_comes_to_an_end(model):
    folded = bnfold.fold(model, verify=False, norms=True).to_proto()
    assert judge.wrong_outputs(model, folded) == []
    assert judge.newly_invalid(model, folded) == ""
    assert judge.node_count(folded) <= judge.node_count(model)
    assert bnfold.fold(folded, verify=False, norms=True).report.steps == ()


@pytest.mark.parametrize(
    "dtype", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE]
)
def test_other_types_obey_the_same_law(dtype):
    @given(models(dtype))
    def law(model):
        folded = bnfold.fold(model, verify=False).to_proto()
        assert judge.wrong_outputs(model, folded) == []

    law()
