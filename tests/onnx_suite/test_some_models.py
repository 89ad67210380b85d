"""A sample of the suite, and what `make suite` says of all of it."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.laws.by_runtime import Runtime
from tests.onnx_suite.counts import MODELS, comparable, unexpected, words
from tests.onnx_suite.models import all_tests
from tests.onnx_suite.trial import AS_IT_IS, WRAPPED, Line, refuses, tried

pytest.importorskip("onnxruntime")
STEP = 47
FOLDED = {AS_IT_IS: 3, WRAPPED: 24}
REFUSED = {AS_IT_IS: 0, WRAPPED: 4}


def test_every_47th_model_keeps_the_promise():
    with Runtime() as runtime:
        lines = [
            tried(test, way, runtime)
            for test in all_tests()[::STEP]
            for way in (AS_IT_IS, WRAPPED)
        ]
    assert [line for line in lines if line.faults] == []
    if comparable():
        folded = Counter(line.way for line in lines if line.end == "folded")
        refused = Counter(line.way for line in lines if refuses(line))
        assert dict(folded) == FOLDED
        assert {way: refused[way] for way in REFUSED} == REFUSED


def test_the_suite_has_all_its_models():
    tests = all_tests()
    assert not comparable() or len(tests) == MODELS
    assert len({test.name for test in tests}) == len(tests)


def test_models_that_the_runtime_refuses_without_being_expected_to_are_told():
    line = Line("some", AS_IT_IS, "folded", runtime="refuses the original")
    told = unexpected([line] * MODELS)
    assert not comparable() or f"refuses {MODELS} originals" in told[0]
    assert "0 with a fault" in words([line])
