"""Regressions that the campaign found: the right node and channel are named."""

from __future__ import annotations

import pytest

from tests.mutants.trial import fold_of_seed, nursery_of, sentence


def spoiled(fold, seed, kind):
    return next(m for m in nursery_of(fold, seed).mutants() if m.kind == kind)


@pytest.mark.parametrize("seed", [7, 5, 12])  # Gemm, MatMul, ConvTranspose
@pytest.mark.parametrize("kind", ["channel by 1 %", "element by 2 ulp"])
def test_the_output_channel_is_named_whatever_axis_it_lies_on(seed, kind):
    fold = fold_of_seed(seed, "fp32")
    mutant = spoiled(fold, seed, kind)
    assert mutant.channel is not None
    assert sentence("certificate", fold, mutant.model).names_channel(mutant)


def test_a_certificate_cannot_hide_the_node_by_listing_its_value():
    fold = fold_of_seed(2, "fp32")
    mutant = spoiled(fold, 2, "mean forgotten")
    said = sentence("forged", fold, mutant.model, mutant.tensors)
    assert said.convicted
    assert said.names_node(mutant)


@pytest.mark.parametrize(
    ("seed", "kind"),
    [
        (9, "mean forgotten"),  # the output itself is a map of the original's
        (1, "stale weight"),  # a Concat hands the fault on; only its result was renamed
    ],
)
def test_the_node_that_holds_the_fault_is_named_and_not_one_that_hands_it_on(seed, kind):
    fold = fold_of_seed(seed, "fp32")
    mutant = spoiled(fold, seed, kind)
    said = sentence("no certificate", fold, mutant.model)
    assert said.convicted
    assert said.finding.node in mutant.nodes
