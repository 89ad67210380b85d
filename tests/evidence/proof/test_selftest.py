"""What the comparison was shown to notice, and what it says where it could not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest

import bnfold
from bnfold.evidence.proof import prove
from bnfold.evidence.verdict import by_proof
from bnfold.model.io import opened
from bnfold.records import ProofReport, Verdict
from bnfold.report.to_json import verify_document
from tests.evidence.proof.models import (
    INT64,
    N,
    conv_bn,
    folded,
    linear,
    model,
    proofs,
    stored,
)

RNG = np.random.default_rng(11)
W, S = RNG.normal(size=(4, 3, 3, 3)), RNG.uniform(0.5, 2, (4, 1, 1))
E, F = RNG.normal(size=(50, 6)), RNG.uniform(0.5, 2, 6)
M = RNG.normal(size=(3, 4))
ONE = np.float32


def embedding() -> onnx.ModelProto:
    nodes = [N("Gather", ["e", "x"], ["g"]), N("Mul", ["g", "f"], ["y"])]
    return model(nodes, {"e": E, "f": F}, [("x", [1, 3], INT64)], [("y", [1, 3, 6])])


def clip_bounds() -> onnx.ModelProto:
    nodes = [
        N("Mul", ["x", "s"], ["a"]),
        N("Clip", ["a", "lo", "hi"], ["b"]),
        N("MatMul", ["b", "w"], ["y"]),
    ]
    held = {"s": ONE(1.5), "lo": ONE(-1), "hi": ONE(2), "w": M}
    return model(nodes, held, [("x", [2, 3])], [("y", [2, 4])])


def leaky() -> onnx.ModelProto:
    nodes = [
        N("Mul", ["x", "s"], ["a"]),
        N("LeakyRelu", ["a"], ["b"], alpha=0.3, name="leaky"),
        N("MatMul", ["b", "w"], ["y"]),
    ]
    return model(nodes, {"s": ONE(-1.5), "w": M}, [("x", [2, 3])], [("y", [2, 4])])


HONEST = {
    "Conv and its bias": (lambda: conv_bn(3, 8, c=4), 8),
    "Gemm and its bias": (lambda: linear("Gemm"), 12),
    "MatMul and its bias": (lambda: linear("MatMul"), 12),
    "grouped ConvTranspose": (lambda: linear("ConvTranspose"), 12),
    "table of an embedding": (embedding, 6),
    "bounds of Clip": (clip_bounds, 6),
    "alpha of LeakyRelu": (leaky, 5),
}


@pytest.mark.parametrize("name", HONEST)
def test_every_channel_of_what_is_new_is_shown(name: str) -> None:
    build, channels = HONEST[name]
    original = build()
    for report in proofs(original, folded(original)):
        assert report.verdict is Verdict.PASSED, report.why
        assert (report.shown, report.channels) == (channels, channels)
        assert report.share == 1.0
        assert report.unshown == ()
        assert report.elements > 0
        assert report.why == ""


def test_every_row_of_a_table_is_read() -> None:
    """Three indices of fifty are drawn; row 37 counts all the same."""
    original = embedding()
    wrong = folded(original).to_proto()
    table = stored(wrong)["e"].astype(np.float32)
    table[37, 2] += 0.1
    wrong.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(table, "e"))
    assert prove(opened(original), opened(wrong)).verdict is Verdict.FAILED


def hidden(behind: list[Any], held: dict[str, Any], front: Any = None) -> ProofReport:
    """Conv, a scale and what hides some of it; in the other model the scale is in the weight.

    No value between has a name that both models know: all of it is one segment.
    """
    head = [] if front is None else [front]
    source = "x" if front is None else "z"
    faces = [("x", [1, 3, 8, 8])], [("y", [None] * 4)]
    before = [N("Conv", [source, "w"], ["c"]), N("Mul", ["c", "s"], ["d"]), *behind]
    original = model([*head, *before], {"w": W, "s": S, **held}, *faces)
    after = [N("Conv", [source, "u"], ["d"], name="conv"), *behind]
    new = {"u": W * S[..., None], **held}
    other = model([*head, *after], new, *faces)
    for node in other.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"other.{one}" if one in ("d", "e", "z") else one for one in names]
    return prove(opened(original), opened(other))


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers)


HIDING: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "dropped by Slice": (
        [N("Slice", ["d", "st", "en", "ax"], ["y"])],
        {"st": ints(0), "en": ints(3), "ax": ints(1)},
        "1 of 4 channels of 'u' of conv (3)",
    ),
    "dropped by Gather": (
        [N("Gather", ["d", "ix"], ["y"], axis=1)],
        {"ix": ints(0, 2, 2)},
        "2 of 4 channels of 'u' of conv (1, 3)",
    ),
    "saturated by Clip": (
        [N("Add", ["d", "t"], ["e"]), N("Clip", ["e", "lo", "hi"], ["y"])],
        {"t": np.float32([0, 0, 1e9, 0]).reshape(4, 1, 1), "lo": ONE(-9), "hi": ONE(9)},
        "1 of 4 channels of 'u' of conv (2)",
    ),
    "saturated by Sigmoid": (
        [N("Add", ["d", "t"], ["e"]), N("Sigmoid", ["e"], ["y"])],
        {"t": np.float32([0, 0, 1e9, 0]).reshape(4, 1, 1)},
        "1 of 4 channels of 'u' of conv (2)",
    ),
}


@pytest.mark.parametrize("name", HIDING)
def test_what_cannot_be_seen_is_inconclusive_and_named(name: str) -> None:
    behind, held, words = HIDING[name]
    report = hidden(behind, held)
    assert report.verdict is Verdict.NOT_JUDGED
    assert report.shown < report.channels == 4
    assert report.shown == 4 - int(words[0])
    assert report.share == report.shown / 4
    assert report.findings == ()
    (unshown,) = report.unshown
    assert unshown.startswith(words)
    assert words in report.why


def test_a_weight_that_reads_a_dead_channel_is_inconclusive_and_says_so() -> None:
    mask = {"o": np.float32([1, 0, 1]).reshape(3, 1, 1)}
    dead = N("Mul", ["x", "o"], ["z"])
    report = hidden([N("Relu", ["d"], ["y"])], mask, dead)
    assert report.verdict is Verdict.NOT_JUDGED
    assert "reads 1 channels that were zero" in report.why
    assert report.why.count("'u' of conv") == 1


def test_a_result_without_elements_is_inconclusive() -> None:
    empty = {"st": ints(3), "en": ints(3), "ax": ints(2)}
    report = hidden([N("Slice", ["d", "st", "en", "ax"], ["y"])], empty)
    assert report.verdict is Verdict.NOT_JUDGED
    assert report.elements == 0
    assert report.shown == 0
    assert report.why


def test_what_hides_nothing_passes_beside_the_same_names() -> None:
    """The control of these: without what hides, the same pair of models passes."""
    report = hidden([N("Relu", ["d"], ["y"])], {})
    assert report.verdict is Verdict.PASSED, report.why
    assert (report.shown, report.channels) == (4, 4)


def test_json_says_what_was_shown() -> None:
    behind, held, words = HIDING["dropped by Slice"]
    proof = hidden(behind, held)
    document = json.loads(json.dumps(verify_document(by_proof(proof, "nothing was run"))))
    body = document["proof"]
    assert (body["channels"], body["shown"]) == (4, 3)
    assert body["elements"] == proof.elements > 0
    assert body["unshown"][0].startswith(words)


def test_constants_without_elements_have_none_to_change() -> None:
    """Drawing an element of none ended the proof: no certificate could be written."""
    nodes = [
        N("Mul", ["x", "s"], ["a"], name="first"),
        N("ReduceMax", ["a"], ["b"], name="max", axes=[0]),
        N("Mul", ["b", "t"], ["y"], name="second"),
    ]
    held = {"s": np.zeros((0, 1)), "t": np.array([2.0, 2.0])}
    original = model(nodes, held, [("x", (0, 2))], [("y", (1, 2))])
    result = bnfold.fold(original, verify=False, certificate=True)
    for certificate in (result.certificate, None):
        report = bnfold.verify(original, result, certificate=certificate, run=False)
        assert report.verdict is not Verdict.FAILED
