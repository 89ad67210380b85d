"""Steps explain a difference only where something that nudges move goes into them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import bnfold
from bnfold.evidence.proof.comparer import Comparer, Pair
from bnfold.evidence.proof.fronts import is_steady
from bnfold.evidence.proof.segments import SegmentJudge
from bnfold.records import Verdict
from tests.evidence.proof.models import N, model
from tests.proving import with_larger_weights

RNG = np.random.default_rng(5)


def looped(*nodes: onnx.NodeProto) -> onnx.NodeProto:
    """Three turns of a body that goes from `h` to `h2`."""
    flag = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    body = helper.make_graph(
        [N("Identity", ["go"], ["on"]), *nodes],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            flag,
            helper.make_tensor_value_info("h", TensorProto.FLOAT, [2, 4]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h2", TensorProto.FLOAT, [2, 4]),
        ],
    )
    return N("Loop", ["turns", "yes", "u"], ["y"], name="loop", body=body)


RELU = N("Relu", ["h"], ["h2"])
BITES = [N("Greater", ["h", "zero"], ["b"]), N("Where", ["b", "h", "s"], ["h2"])]
LOOPS = {"smooth body": ([looped(RELU)], True), "steps in the body": ([looped(*BITES)], False)}
CHOICES = {
    "what chooses is the input": (
        [N("Greater", ["x", "zero"], ["b"]), N("Where", ["b", "u", "x"], ["y"])],
        True,
    ),
    "what chooses was nudged": (
        [N("Greater", ["u", "zero"], ["b"]), N("Where", ["b", "u", "x"], ["y"])],
        False,
    ),
}


def scaled(behind: list[onnx.NodeProto]) -> onnx.ModelProto:
    """A layer whose scale goes into its weights: they are known as they are stored."""
    nodes = [
        N("MatMul", ["x", "w"], ["v"], name="matmul"),
        N("Mul", ["v", "s"], ["u"], name="scale"),
        *behind,
    ]
    held = {
        "w": RNG.normal(0, 0.5, (4, 4)),
        "s": RNG.uniform(0.5, 2, 4),
        "zero": np.zeros(()),
        "turns": np.array(3),
        "yes": np.array([True]).reshape(()),
    }
    return model(nodes, held, [("x", (2, 4))], [("y", (2, 4))])


@pytest.mark.parametrize("name", [*LOOPS, *CHOICES])
def test_what_nudges_do_not_reach_takes_no_step(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind, steady = {**LOOPS, **CHOICES}[name]
    original = scaled(behind)
    folded = bnfold.fold(original, verify=False).to_proto()
    assert "Mul" not in {node.op_type for node in folded.graph.node}
    seen: list[tuple[Pair, Comparer]] = []
    own = SegmentJudge.verdict

    def watched(judge: SegmentJudge, pair: Pair, sizes: object) -> object:
        seen.append((pair, judge.comparer))
        return own(judge, pair, sizes)

    monkeypatch.setattr(SegmentJudge, "verdict", watched)
    report = bnfold.verify(original, folded, run=False)
    assert report.verdict is not Verdict.FAILED, report.why
    spoiled = with_larger_weights(folded)
    assert bnfold.verify(original, spoiled, run=False).verdict is Verdict.FAILED
    whole = [
        is_steady(pair, comparer)
        for pair, comparer in seen
        if pair.folded.result.name == "y" and len(pair.folded.nodes) == len(folded.graph.node)
    ]
    assert whole
    assert set(whole) == {steady}
