"""An edited certificate is refused; a forged one does not acquit a spoiled fold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bnfold.evidence.proof.certificate import read_certificate
from bnfold.evidence.proof.prove import prove
from bnfold.records import Charge, Verdict
from tests.mutants.tampering import naive_edits, packed, sealed, sealed_edits, verdict
from tests.mutants.trial import fold_of_seed, nursery_of, sentence

REFUSED = (None, Verdict.FAILED)
SEEDS = [2, 9, 12]  # conv, pre-activation, ConvTranspose


@pytest.fixture(scope="module", params=SEEDS)
def seed(request):
    return request.param


@pytest.fixture(scope="module")
def fold(seed):
    return fold_of_seed(seed, "fp32")


@pytest.fixture(scope="module")
def text(fold):
    return fold.certificate.to_json()


@pytest.fixture(scope="module")
def spoiled(fold, seed):
    mutants = nursery_of(fold, seed).mutants()
    return next(mutant for mutant in mutants if mutant.kind == "channel by 1 %")


def test_the_untouched_certificate_is_accepted(fold, text):
    assert verdict(fold, text) is Verdict.PASSED


def test_sealing_is_what_the_product_does(text):
    assert sealed(json.loads(text)) == text


def test_every_naive_edit_is_refused(fold, text):
    accepted = [
        edit.what for edit in naive_edits(text) if verdict(fold, edit.text) not in REFUSED
    ]
    assert accepted == []


def test_no_edit_with_a_new_seal_acquits_a_spoiled_fold(fold, text, spoiled):
    """Nor does one make the judge fall over."""
    accepted = [
        edit.what
        for edit in sealed_edits(text)
        if verdict(fold, edit.text, spoiled.model) not in REFUSED
    ]
    assert accepted == []


def test_the_certificate_of_another_model_is_refused(fold, seed):
    other = fold_of_seed(seed + 13, "fp32").certificate.to_json()
    assert verdict(fold, other) in REFUSED


def test_a_certificate_made_to_fit_a_spoiled_fold_does_not_acquit_it(fold, seed):
    mutants = list(nursery_of(fold, seed).sample(30))
    acquitted = [
        mutant.kind
        for mutant in mutants
        if not sentence("forged", fold, mutant.model, mutant.tensors).convicted
    ]
    assert len(mutants) > 20
    assert acquitted == []


def test_silence_on_a_tensor_hides_no_more_than_its_rounding(fold, spoiled):
    """Without a recipe, a tensor is judged within the noise of storing it."""
    assert sentence("silent", fold, spoiled.model, spoiled.tensors).convicted


@pytest.mark.parametrize("factors", [[], [{"shape": [7], "float64": packed(np.ones(7))}]])
def test_a_recipe_that_makes_no_sense_is_a_finding(factors):
    fold = fold_of_seed(2, "fp32")
    body = json.loads(fold.certificate.to_json())
    told = next(one for one in body["tensors"] if one["recipe"] and "product" in one["recipe"])
    told["recipe"]["factors"] = factors
    certificate = read_certificate(sealed(body))
    report = prove(fold.original, fold.result.model, certificate)
    assert report.verdict is Verdict.FAILED
    assert report.findings[0].charge is Charge.TENSOR
