"""onnx's own test of every operator: its float32 expectations against our float64."""

from __future__ import annotations

import warnings
from collections import defaultdict

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from bnfold.evidence.reference import Evaluator, NoKernelError
from bnfold.model.io import from_proto

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its test cases divide by zero on purpose
    from onnx.backend.test.case.node import collect_testcases

    CASES = [case for case in collect_testcases(None) if case.model is not None]

LEFT_OUT = {
    "test_cast_e8m0": "a type of exponents is rounded in its own way",
    "test_dynamicquantizelinear": "a tie that only float32 has",
    "test_if_opt": "an optional sequence",
    "test_resize_downsample_scales_linear_align_corners": "runtimes use the whole size",
    "test_resize_downsample_scales_cubic_align_corners": "runtimes use the whole size",
}
NO_KERNEL = {
    "AffineGrid": "onnx.reference leaves float64",
    "Bernoulli": "random",
    "BitCast": "its bits are not there",
    "CausalConvWithState": "onnx.reference computes it in float32",
    "Dropout": "random in training",
    "ImageDecoder": "no numbers",
    "LinearAttention": "onnx.reference computes it in float32",
    "MelWeightMatrix": "onnx.reference leaves float64",
    "RandomUniformLike": "random",
    "Scan": "version 8 has a batch axis",
    "SequenceMap": "subgraph of a function",
}


def by_operator():
    found = defaultdict(list)
    for case in CASES:
        domains = {node.domain for node in case.model.graph.node}
        if domains <= {"", "ai.onnx"} and not case.name.startswith(tuple(LEFT_OUT)):
            found[case.model.graph.node[0].op_type].append(case)
    return sorted(found.items())


def decoded(value):
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def agree(ours, theirs, name):
    if isinstance(theirs, list):
        for one, other in zip(ours, theirs, strict=True):
            agree(one, other, name)
        return
    if ours is None or theirs is None:
        return
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape, name
    if theirs.dtype.kind in "OU":
        assert ours.astype(str).tolist() == theirs.astype(str).tolist(), name
        return
    coarse = theirs.dtype.kind in "fV" and theirs.dtype.itemsize < 4
    # some expectations are written down with four digits
    rtol, atol = (1e-2, 1e-2) if coarse else (1e-4, 1e-4)
    ours, theirs = ours.astype(float), theirs.astype(float)
    np.testing.assert_allclose(ours, theirs, rtol, atol, err_msg=name)


@pytest.mark.parametrize(
    "cases", [pytest.param(cases, id=operator) for operator, cases in by_operator()]
)
def test_operator(cases):
    for case in cases:
        for inputs, wanted in case.data_sets:
            names = [info.name for info in case.model.graph.input]
            feeds = dict(zip(names, map(decoded, inputs), strict=False))
            try:
                got = Evaluator(from_proto(case.model)).run(feeds)
            except NoKernelError as error:
                if str(error).partition(":")[0] not in NO_KERNEL:
                    raise
            else:
                agree(list(got.values()), [decoded(value) for value in wanted], case.name)
