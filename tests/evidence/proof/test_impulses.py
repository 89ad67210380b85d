"""Impulses tell an affine function completely."""

from __future__ import annotations

import numpy as np

import bnfold
from bnfold.evidence.proof import prove, read_certificate
from bnfold.evidence.proof.impulses import impulses, is_affine
from bnfold.evidence.proof.sides import Side
from bnfold.model.io import opened
from tests.small import conv_bn


def test_zeros_and_every_place_once():
    batches = np.concatenate(list(impulses((1, 3, 2, 2))))
    assert batches.shape == (13, 3, 2, 2)
    assert not batches[0].any()
    np.testing.assert_array_equal(batches[1:].reshape(12, 12), np.eye(12))


def test_chunks_leave_nothing_out():
    assert sum(len(batch) for batch in impulses((1, 2048))) == 2049


def test_what_counts_as_affine():
    side = Side(opened(conv_bn()))
    segments = [side.segment(side.values[name], set(), 9) for name in ("b", "y")]
    assert [is_affine(segment, side) for segment in segments] == [True, False]


def test_affine_segments_are_counted_and_hold():
    model = conv_bn()
    model.graph.node.pop()  # the Relu
    model.graph.output[0].name = "b"
    result = bnfold.fold(model, verify=False, certificate=True)
    certificate = read_certificate(result.certificate.to_json())
    models = opened(model), opened(result.to_proto())
    report = prove(*models, certificate, impulses=True)
    assert report.passed
    assert report.impulses == 1
    assert prove(*models, certificate).impulses == 0
