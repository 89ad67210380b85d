"""An operator between a map and constants that take any map, both ways round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from hypothesis import strategies as st

import bnfold
from bnfold.records import Code
from tests.battery import judge
from tests.battery.graphs import Net, spread
from tests.reference64 import run64

Carry = Callable[[Net, str], str]


@dataclass(frozen=True)
class Map:
    """A map along an axis as the nodes Mul and Add, or one of the two."""

    axis: int | None
    scale: np.ndarray | None
    shift: np.ndarray | None

    @property
    def nodes(self) -> int:
        return (self.scale is not None) + (self.shift is not None)

    def write(self, net: Net, x: str, rank: int) -> str:
        for op, values in (("Mul", self.scale), ("Add", self.shift)):
            if values is not None:
                along = values if self.axis is None else spread(values, rank, self.axis)
                x = net.node(op, [x, net.const(along)])
        return x


@st.composite
def maps(draw, size: int | None, axis: int | None, *, positive=False, shift=True) -> Map:
    """A drawn map of ``size`` channels (None: uniform), never one that changes nothing."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    shape = () if size is None or axis is None else (size,)
    sign = 1.0 if positive else np.where(rng.random(shape) < 0.4, -1.0, 1.0)
    kind = draw(st.sampled_from(["scale", "shift", "both"] if shift else ["scale"]))
    scale = rng.uniform(0.4, 2.0, shape) * sign
    moved = rng.uniform(0.3, 1.5, shape) * np.where(rng.random(shape) < 0.5, -1.0, 1.0)
    return Map(
        axis if shape else None,
        None if kind == "shift" else np.asarray(scale),
        None if kind == "scale" else np.asarray(moved),
    )


def axis_map(draw, shape: Sequence[int], axes: Sequence[int], **options) -> Map:
    """A drawn map along one of ``axes`` of a value of that shape, or a uniform one."""
    axis = draw(st.sampled_from([None, *axes]))
    return draw(maps(None if axis is None else shape[axis], axis, **options))


def shape_of(net: Net, value: str) -> list[int]:
    kept, net.outputs = net.outputs, [value]
    result = net.model().graph.output[0].type.tensor_type.shape
    net.outputs = kept
    return [dim.dim_value for dim in result.dim]


def takes_all(net: Net, x: str, *, behind: bool) -> str:
    """Constants that vary along all axes: no map themselves, but they take every map."""
    shape = [d.dim_value for d in net.inputs[0].type.tensor_type.shape.dim]
    shape = shape if x == net.inputs[0].name else shape_of(net, x)
    for op in ("Add", "Mul") if behind else ("Mul", "Add"):
        x = net.node(op, [x, net.const(net.rng.uniform(0.5, 1.5, shape))])
    return x


def above(carry: Carry, shape: Sequence[int], out: Map, opset: int = 17) -> onnx.ModelProto:
    """x → constants → operator → map: the map must go up."""
    net = Net("above", opset)
    y = carry(net, takes_all(net, net.input(shape), behind=False))
    net.output(out.write(net, y, len(shape_of(net, y))))
    return net.model()


def below(carry: Carry, shape: Sequence[int], into: Map, opset: int = 17) -> onnx.ModelProto:
    """x → map → operator → constants: the map must go down."""
    net = Net("below", opset)
    y = carry(net, into.write(net, net.input(shape), len(shape)))
    net.output(takes_all(net, y, behind=True))
    return net.model()


def assert_carried(model: onnx.ModelProto, gone: int) -> onnx.ModelProto:
    """The fold removes ``gone`` affine nodes, keeps the function and leaves nothing to do."""
    result = bnfold.fold(model, verify=False)
    folded = result.to_proto()
    assert judge.wrong_outputs(model, folded) == []
    why = [refusal for stay in result.report.stays for refusal in stay.refusals]
    assert judge.affine_count(model) - judge.affine_count(folded) == gone, why
    assert judge.newly_invalid(model, folded) == ""
    assert bnfold.fold(folded, verify=False).report.steps == ()
    return folded


def assert_carried_at_run_time(model: onnx.ModelProto, gone: int) -> None:
    """The same where onnx's reference does not compute the operator, by the runtime."""
    runtime = pytest.importorskip("tests.battery.runtime")
    folded = bnfold.fold(model, verify=False).to_proto()
    assert judge.affine_count(model) - judge.affine_count(folded) == gone
    feeds = judge.inputs_of(model, 0)
    wanted, complaint = runtime.outputs(model, feeds, optimised=False)
    assert complaint == ""
    got, complaint = runtime.outputs(folded, feeds, optimised=False)
    assert complaint == ""
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5)


def assert_harmless(model: onnx.ModelProto) -> onnx.ModelProto:
    """Whatever the fold does, the function stays."""
    folded = bnfold.fold(model, verify=False).to_proto()
    assert judge.wrong_outputs(model, folded) == []
    assert judge.newly_invalid(model, folded) == ""
    return folded


def assert_stays(model: onnx.ModelProto, code: Code) -> None:
    """Nothing is folded, and ``code`` is among the reasons."""
    result = bnfold.fold(model, verify=False)
    found = {refusal.code for stay in result.report.stays for refusal in stay.refusals}
    assert result.report.steps == ()
    assert result.to_proto().SerializeToString() == model.SerializeToString()
    assert code in found, found


def assert_does_not_commute(carry: Carry, shape: Sequence[int], both: Map, **options) -> None:
    """The map behind the operator is another function than the map in front of it."""
    results = []
    for first in (True, False):
        net = Net("order", **options)
        x = net.input(shape)
        if first:
            x = both.write(net, x, len(shape))
        y = carry(net, x)
        net.output(y if first else both.write(net, y, len(shape_of(net, y))))
        model = net.model()
        (y,) = run64(model, judge.inputs_of(model, 0)).values()
        results.append(y)
    assert not np.allclose(*results, rtol=1e-3, atol=1e-3)


MIXED = Map(1, np.array([1.5, -0.5, 2.0]), None)
POSITIVE = Map(1, np.array([1.5, 0.5, 2.0]), None)
SHIFT = Map(1, None, np.array([0.5, -0.7, 1.0]))
