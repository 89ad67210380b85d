"""onnx's own test of every operator: its float32 expectations against our float64."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from bnfold.evidence.reference import Evaluator, NoKernelError
from bnfold.model.growth import Given, growth_of
from bnfold.model.io import from_proto

LEFT_OUT = {
    "test_cast_e8m0": "a type of exponents is rounded in its own way",
    "test_dynamicquantizelinear": "a tie that only float32 has",
    "test_if_opt": "an optional sequence",
    "test_resize_downsample_scales_linear_align_corners": "runtimes use the whole size",
    "test_resize_downsample_scales_cubic_align_corners": "runtimes use the whole size",
}
NO_KERNEL = {
    "Bernoulli": "random",
    "BitCast": "its bits are not there",
    "Dropout": "random in training",
    "ImageDecoder": "no numbers",
    "MelWeightMatrix": "onnx.reference leaves float64",
    "RandomUniformLike": "random",
    "Scan": "version 8 has a batch axis",
    "SequenceMap": "subgraph of a function",
}


@pytest.fixture(scope="module")
def cases():
    """All of them: to make them takes seconds, so nobody else has to, as a collector would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they divide by zero on purpose
        from onnx.backend.test.case.node import collect_testcases

        return [case for case in collect_testcases(None) if case.model is not None]


def by_operator(cases):
    found = defaultdict(list)
    for case in cases:
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


def check(cases):
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


def test_every_operator(cases):
    operators, faults = by_operator(cases), {}
    for operator, of_it in operators:
        try:
            check(of_it)
        except Exception as error:  # noqa: BLE001  all operators are asked, whatever one does
            faults[operator] = f"{type(error).__name__}: {error}"
    assert faults == {}
    assert len(operators) > 180


NO_BOUND = ("If", "Loop", "Scan", "ImageDecoder", "LinearAttention", "Constant")


def flat(value):
    """A sequence counts as a row of all its elements."""
    if isinstance(value, list):
        return np.zeros(sum(np.size(one) for one in value))
    return value


def test_every_operator_makes_no_more_than_its_bound(cases):
    seen = set()
    for case in cases:
        nodes = case.model.graph.node
        if len(nodes) > 1 or nodes[0].domain or nodes[0].op_type in NO_BOUND:
            continue
        names = [info.name for info in case.model.graph.input]
        node, opset = from_proto(case.model).graph[0], case.model.opset_import[0].version
        for inputs, wanted in case.data_sets:
            given = dict(zip(names, (flat(decoded(x)) for x in inputs), strict=False))
            arrays = [given.get(name) if name else None for name in nodes[0].input]
            shapes = [None if x is None else np.shape(x) for x in arrays]
            found = growth_of(Given(node, shapes, arrays.__getitem__, opset)).elements
            made = max((np.size(flat(decoded(one))) for one in wanted), default=0)
            assert made <= found < math.inf, (case.name, made, found)
        seen.add(node.op_type)
    assert len(seen) > 150
