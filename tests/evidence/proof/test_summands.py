"""Channels that a linear operator mixes are told apart by what each of them adds."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import bnfold
from bnfold.evidence.proof import prove
from bnfold.evidence.proof.sides import Side
from bnfold.evidence.proof.summands import seen_alone
from bnfold.model.io import opened
from bnfold.records import Verdict
from tests.evidence.proof.models import N, changed, model, stored

_LEAST = 1e-6


def _windows(
    op_type: str, shape: tuple[int, ...], weight: tuple[int, ...], **attributes: Any
) -> tuple[onnx.NodeProto, tuple[int, ...], tuple[int, ...], int]:
    return N(op_type, ["x", "w"], ["y"], **attributes), shape, weight, 1


OPERATORS = {
    "Conv": _windows("Conv", (2, 6, 5, 5), (4, 6, 3, 3), pads=[1, 0, 1, 0]),
    "Conv of groups": _windows(
        "Conv", (2, 6, 7, 5), (4, 3, 3, 3), group=2, strides=[2, 1], dilations=[2, 1]
    ),
    "Conv with auto_pad": _windows(
        "Conv", (1, 6, 5), (9, 6, 2), auto_pad="SAME_UPPER", strides=[2]
    ),
    "ConvTranspose": _windows("ConvTranspose", (2, 6, 4), (6, 5, 3), strides=[2], pads=[1, 1]),
    "ConvTranspose of groups": _windows(
        "ConvTranspose",
        (1, 6, 3, 3),
        (6, 2, 3, 3),
        group=3,
        output_padding=[1, 1],
        strides=[2, 2],
    ),
    "MatMul": (N("MatMul", ["x", "w"], ["y"]), (2, 3, 6), (6, 4), 2),
    "Gemm": (N("Gemm", ["x", "w"], ["y"], alpha=0.3), (3, 6), (6, 4), 1),
    "Gemm turned": (N("Gemm", ["x", "w"], ["y"], transA=1, transB=1), (6, 3), (4, 6), 0),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_what_a_channel_adds_is_what_moving_it_alone_changes(name: str) -> None:
    node, shape, weight, axis = OPERATORS[name]
    rng = np.random.default_rng(5)
    w = rng.normal(size=weight)
    # Of what one channel meets: nothing at all, and hardly anything.
    along = {"Conv": 1, "ConvTranspose": 0}.get(node.op_type, 1 if "turned" in name else 0)
    for place, size in ((1, 0.0), (2, 1e-9)):
        here = [slice(None)] * w.ndim
        here[along] = place
        w[tuple(here)] *= size
    proto = model(
        [node], {"w": w}, [("x", shape)], [("y", [None] * len(shape))], dtype="float64"
    )
    side = Side(opened(proto))
    segment = side.segment(side.values["y"], {"x"}, 1)
    assert segment is not None
    x, step = rng.normal(size=shape), rng.normal(size=shape)
    still = side.evaluate(segment, {"x": x})
    wanted = []
    for channel in range(shape[axis]):
        other = x.copy()
        here = [slice(None)] * x.ndim
        here[axis] = channel
        other[tuple(here)] += step[tuple(here)]
        wanted.append(
            bool((np.abs(side.evaluate(segment, {"x": other}) - still) > _LEAST).any())
        )
    found = seen_alone(side, segment, "x", axis, step, np.full(still.shape, _LEAST))
    assert found is not None
    assert found.tolist() == wanted
    assert not all(wanted)
    assert any(wanted)


def test_a_product_by_data_and_a_sum_of_one_value_twice_are_left_to_other_means() -> None:
    square = model([N("MatMul", ["x", "x"], ["y"])], {}, [("x", [4, 4])], [("y", [4, 4])])
    beside = model(
        [N("Conv", ["x", "w", "x1"], ["y"])],
        {"w": np.ones((1, 1, 1))},
        [("x", [1, 1, 1]), ("x1", [1])],
        [("y", [1, 1, 1])],
    )
    for proto, name, axis in ((square, "x", 1), (beside, "x1", 0)):
        side = Side(opened(proto))
        segment = side.segment(side.values["y"], {"x", "x1"}, 1)
        assert segment is not None
        shape = (4, 4) if name == "x" else (1, 1, 1)
        assert seen_alone(side, segment, name, axis, np.ones(shape), np.zeros(shape)) is None


def mixed(channels: int) -> onnx.ModelProto:
    """A scale for each channel, Relu, and a Conv that mixes all of them into two."""
    rng = np.random.default_rng(3)
    held = {
        "s": rng.uniform(0.5, 2.0, (channels, 1, 1)),
        "w": rng.normal(size=(2, channels, 1, 1)),
    }
    nodes = [
        N("Mul", ["x", "s"], ["a"], name="mul"),
        N("Relu", ["a"], ["r"], name="relu"),
        N("Conv", ["r", "w"], ["y"], name="conv"),
    ]
    return model(nodes, held, [("x", [1, channels, 4, 4])], [("y", [1, 2, 4, 4])])


def test_a_conv_of_more_channels_than_are_moved_one_by_one_is_shown_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = mixed(300)
    result = bnfold.fold(original, verify=False)
    runs = 0
    run = Side.evaluate

    def counted(self: Side, *given: Any, **known: Any) -> Any:
        nonlocal runs
        runs += 1
        return run(self, *given, **known)

    monkeypatch.setattr(Side, "evaluate", counted)
    report = prove(opened(original), result.model)
    assert report.passed
    assert report.shown == report.channels
    assert runs < 200  # 8,159 where each of 256 channels was moved by itself, in vain


def test_a_scale_that_one_of_many_channels_lost_is_found() -> None:
    original = mixed(300)
    folded = bnfold.fold(original, verify=False).to_proto()
    (name,) = (name for name, one in stored(folded).items() if one.shape == (2, 300, 1, 1))
    weight = stored(folded)[name].copy()
    weight[:, 299] = stored(original)["w"][:, 299]
    report = prove(opened(original), opened(changed(folded, {name: weight})))
    assert report.verdict is Verdict.FAILED
