"""Normalisations by the data: maps behind go into scale and bias, shifts in front cancel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import bnfold
from bnfold.records import Code
from tests.battery import judge
from tests.battery.graphs import Net
from tests.reference64 import run64
from tests.rules.around import (
    Map,
    above,
    assert_carried,
    assert_does_not_commute,
    assert_harmless,
    assert_stays,
    below,
    maps,
)

KINDS = [
    ("LayerNormalization", 17),
    ("RMSNormalization", 23),
    ("GroupNormalization", 18),
    ("GroupNormalization", 21),
    ("InstanceNormalization", 7),
    ("InstanceNormalization", 17),
    ("InstanceNormalization", 22),
]
DTYPES = ["fp32", "fp64", "fp16", "bf16"]


@dataclass(frozen=True)
class Norm:
    """A normalisation of values of one shape, with parameters that vary."""

    kind: str
    opset: int
    shape: Sequence[int]
    axis: int = -1
    groups: int = 2
    bias: bool = True
    epsilon: float = 0.05

    @property
    def first(self) -> int:
        """The first axis that is normalised; of groups, the first with nothing kept apart."""
        return self.axis % len(self.shape) if self.kind[:2] in {"La", "RM"} else 2

    def __call__(self, net: Net, x: str) -> str:
        attributes = {"epsilon": self.epsilon}
        size = [self.shape[1]]
        if self.kind == "GroupNormalization":
            attributes["num_groups"] = self.groups
            size = [self.groups] if self.opset < 21 else size
        if self.first != 2 or self.kind[:2] in {"La", "RM"}:
            attributes["axis"] = self.axis
            size = list(self.shape[self.first :])
        count = int(np.prod(size))
        inputs = [x, net.const(net.scale(count).reshape(size))]
        if self.kind != "RMSNormalization" and self.bias:
            inputs.append(net.const(net.shift(count).reshape(size)))
        y = net.node(self.kind, inputs, **attributes)
        net.shapes[y] = self.shape  # onnx infers none for GroupNormalization
        return y

    def axes_behind(self) -> list[int]:
        """Axes of Y that scale has."""
        if self.kind[:2] in {"La", "RM"}:
            return list(range(self.first, len(self.shape)))
        return [] if self.kind == "GroupNormalization" and self.opset < 21 else [1]

    def axes_in_front(self) -> list[int]:
        """Axes of X along which every set of elements is normalised alone."""
        if self.kind[:2] in {"La", "RM"}:
            return list(range(self.first))
        return [0] if self.kind == "GroupNormalization" else [0, 1]


@st.composite
def norms(draw, kinds=KINDS) -> Norm:
    kind, opset = draw(st.sampled_from(kinds))
    groups, each = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rank = draw(st.integers(3, 4))
    shape = [2, groups * each, 3, 5][:rank]
    axis = draw(st.integers(-rank + 1, rank - 1).filter(lambda a: a != 0))
    bias = kind != "LayerNormalization" or draw(st.booleans())
    return Norm(kind, opset, shape, axis, groups, bias)


def drawn_map(draw, norm: Norm, axes: Sequence[int], **options) -> Map:
    axis = draw(st.sampled_from([None, *(a for a in axes if norm.shape[a] > 1)]))
    return draw(maps(None if axis is None else norm.shape[axis], axis, **options))


def by_group(draw, norm: Norm, **options) -> Map:
    """A map of the channels that is the same throughout each group."""
    few = draw(maps(norm.groups, 1, **options))
    each = norm.shape[1] // norm.groups
    spread = [None if v is None else np.repeat(v, each) for v in (few.scale, few.shift)]
    return Map(1, *spread)


# -------------------------------------------------------------------------- behind


@given(st.data(), norms())
def test_a_map_behind_goes_into_scale_and_bias(data, norm):
    axes = norm.axes_behind()
    drawn = drawn_map(data.draw, norm, axes, shift=norm.kind != "RMSNormalization")
    folded = assert_carried(above(norm, norm.shape, drawn, norm.opset), drawn.nodes)
    assert [n.op_type for n in folded.graph.node] == ["Mul", "Add", norm.kind]


@given(st.data(), norms([("GroupNormalization", 18)]))
def test_groups_take_a_map_they_agree_on(data, norm):
    drawn = by_group(data.draw, norm)
    assert_carried(above(norm, norm.shape, drawn, norm.opset), drawn.nodes)


@pytest.mark.parametrize(("kind", "opset"), KINDS)
def test_a_map_on_an_axis_without_scale_stays(kind, opset):
    norm = Norm(kind, opset, [2, 4, 3, 5], axis=2)
    axis = 1 if kind[:2] in {"La", "RM"} else 2
    both = Map(axis, np.linspace(0.5, 2, norm.shape[axis]), None)
    assert_stays(above(norm, norm.shape, both, opset), Code.WRONG_AXIS)


def test_an_old_group_norm_cannot_hold_a_map_of_channels():
    norm = Norm("GroupNormalization", 18, [2, 4, 3])
    both = Map(1, np.array([1.0, 2.0, 3.0, -1.0]), None)
    assert_stays(above(norm, norm.shape, both, 18), Code.MAPS_DIFFER)


def test_an_rms_norm_takes_no_shift():
    norm = Norm("RMSNormalization", 23, [2, 4, 3])
    shift = Map(2, None, np.array([1.0, 2.0, 3.0]))
    assert_stays(above(norm, norm.shape, shift, 23), Code.NEEDS_SCALE_ONLY)


@pytest.mark.parametrize("read", ["Mean", "InvStdDev"])
def test_statistics_stay_what_they_are(read):
    """A map behind Mean is not absorbed; one in front stays if Mean is read."""
    for behind in (True, False):
        net = Net("statistics")
        x = net.input([2, 3, 4])
        x = x if behind else net.node("Add", [x, net.const(0.7)])
        scale, bias = net.const(net.scale(4)), net.const(net.shift(4))
        names = ["y", "Mean", "InvStdDev"]
        net.nodes_out("LayerNormalization", [x, scale, bias], names)
        z = net.node("Mul", ["y", net.const(net.scale(4))])
        net.output(z, net.node("Mul", [read, net.const(2.0)]) if behind else read)
        model = net.model()
        folded = assert_harmless(model)
        assert judge.affine_count(folded) == 1  # the Mul behind y alone went


def test_a_dynamic_scale_is_named():
    net = Net("dynamic", 17)
    y = net.node("LayerNormalization", [net.input([2, 3]), net.input([3], "s")])
    net.output(net.node("Mul", [y, net.const(net.scale(3))]))
    assert_stays(net.model(), Code.DYNAMIC_WEIGHT)


# ------------------------------------------------------------------------ in front


@given(st.data(), norms([k for k in KINDS if k[0] != "RMSNormalization"]))
def test_a_shift_in_front_cancels(data, norm):
    drawn = drawn_map(data.draw, norm, norm.axes_in_front())
    shift = Map(
        drawn.axis, None, np.asarray(drawn.scale if drawn.shift is None else drawn.shift)
    )
    folded = assert_carried(below(norm, norm.shape, shift, norm.opset), 1)
    assert [n.op_type for n in folded.graph.node] == [norm.kind, "Add", "Mul"]


@given(st.data(), norms([k for k in KINDS if k[0] == "GroupNormalization"]))
def test_a_shift_of_whole_groups_cancels(data, norm):
    few = by_group(data.draw, norm)
    shift = Map(1, None, few.scale if few.shift is None else few.shift)
    assert_carried(below(norm, norm.shape, shift, norm.opset), 1)


@given(st.data(), norms(), st.sampled_from(["fp32", "fp64"]))
def test_one_scale_in_front_goes_into_epsilon(data, norm, dtype):
    sizes = [0.25, 2.0, 64.0] if dtype == "fp64" else [0.3, 1.7, 90.0]
    size = data.draw(st.sampled_from(sizes)) * data.draw(st.sampled_from([1, -1]))
    net = Net("epsilon", norm.opset, dtype)
    x = net.node("Mul", [net.input(norm.shape), net.const(size)])
    net.output(net.node("Tanh", [norm(net, x)]))
    folded = assert_carried(net.model(), 1)
    wanted = float(np.float32(norm.epsilon)) / float(np.asarray(size, np.float32)) ** 2
    (found,) = (a.f for a in folded.graph.node[0].attribute if a.name == "epsilon")
    assert found == np.float32(wanted)


@given(st.data(), norms([k for k in KINDS if k[0].startswith("Inst")]))
def test_signs_of_channels_go_into_the_scale_of_an_instance_norm(data, norm):
    signs = data.draw(st.lists(st.sampled_from([1.0, -1.0]), min_size=9, max_size=9))
    signs = np.array(signs[: norm.shape[1]]) * data.draw(st.sampled_from([1.0, 2.0]))
    if (signs == 1.0).all():
        return
    assert_carried(below(norm, norm.shape, Map(1, signs, None), norm.opset), 1)


@pytest.mark.parametrize("kind", ["InstanceNormalization", "GroupNormalization"])
def test_scales_of_several_sizes_meet_epsilon(kind):
    norm = Norm(kind, 21, [2, 4, 3], groups=4)
    sizes = Map(1, np.array([0.5, 2.0, 1.0, 3.0]), None)
    model = below(norm, norm.shape, sizes, 21)
    assert_stays(model, Code.EPSILON)
    # dropped, it would change the function; without epsilon, it would not
    bare = below(norm, norm.shape, Map(None, None, None), 21)
    feeds = judge.inputs_of(model, 0)
    (wanted,), (got,) = (list(run64(m, feeds).values()) for m in (model, bare))
    assert np.abs(wanted - got).max() > 1e-3


@pytest.mark.parametrize(
    ("size", "epsilon", "dtype"),
    [
        (1e-3, 1e37, "fp32"),
        (1e10, 1e-5, "fp32"),
        (1e5, 1e-37, "fp32"),
        (0.0, 1e-5, "fp32"),
        (1.7, 1e-5, "fp64"),
    ],
)
def test_an_epsilon_that_cannot_be_stored_stays(size, epsilon, dtype):
    norm = Norm("LayerNormalization", 17, [2, 3, 4], epsilon=epsilon)
    net = Net("stays", 17, dtype)
    net.output(norm(net, net.node("Mul", [net.input(norm.shape), net.const(size)])))
    assert_stays(net.model(), Code.EPSILON)


def test_float16_without_float32_statistics_keeps_its_epsilon():
    for kind, code in (("InstanceNormalization", Code.EPSILON), ("LayerNormalization", None)):
        norm = Norm(kind, 17, [2, 3, 4])
        net = Net("half", 17, "fp16")
        net.output(norm(net, net.node("Mul", [net.input(norm.shape), net.const(2.0)])))
        if code is None:
            assert_carried(net.model(), 1)
        else:
            assert_stays(net.model(), code)


@pytest.mark.parametrize(("kind", "opset"), KINDS)
def test_a_map_that_differs_within_a_set_stays(kind, opset):
    norm = Norm(kind, opset, [2, 4, 3], groups=2)
    axis = 1 if kind == "GroupNormalization" else 2
    shift = Map(axis, None, np.linspace(-1, 1.5, norm.shape[axis]))
    assert_does_not_commute(norm, norm.shape, shift, opset=opset)
    code = Code.NEEDS_SCALE_ONLY if kind[0] == "R" else Code.WRONG_AXIS
    assert_stays(below(norm, norm.shape, shift, opset), code)


def test_an_rms_norm_cancels_no_shift():
    norm = Norm("RMSNormalization", 23, [2, 4, 3])
    shift = Map(None, None, np.array(0.7))
    model = below(norm, norm.shape, shift, 23)
    assert_stays(model, Code.NEEDS_SCALE_ONLY)


# --------------------------------------------------------------------- whatever comes


@given(st.data(), norms(), st.sampled_from(DTYPES))
def test_any_map_on_any_side_is_harmless(data, norm, dtype):
    net = Net("harmless", norm.opset, dtype)
    y = net.input(norm.shape)
    rank = len(norm.shape)
    y = drawn_map(data.draw, norm, range(rank)).write(net, y, rank)
    y = norm(net, y)
    net.output(drawn_map(data.draw, norm, range(rank)).write(net, y, rank))
    assert_harmless(net.model())


# ------------------------------------------------------------------------ cancelled biases


def test_a_conv_bias_in_front_of_an_instance_norm_is_dropped():
    net = Net("conv_bias")
    y = net.conv(net.input([2, 4, 6, 5]), 4, 6, pads=[1, 1, 1, 1])
    norm = Norm("InstanceNormalization", 17, [2, 6, 6, 5])
    net.output(net.node("Relu", [norm(net, y)]))
    model = net.model()
    result = bnfold.fold(model)
    folded = result.to_proto()
    assert judge.wrong_outputs(model, folded) == []
    assert len(folded.graph.node[0].input) == 2
    assert len(folded.graph.initializer) == len(model.graph.initializer) - 1
    (step,) = result.report.steps
    assert (step.rule, step.move) == ("Conv", "bias dropped, a normalisation cancels it")
    assert step.absorbed_by == (model.graph.node[1].name,)
    assert bnfold.fold(folded, verify=False).report.steps == ()


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "bn", "Add"])
def test_what_is_constant_per_channel_goes_in_front_of_an_instance_norm(op):
    net = Net(f"drop{op}")
    x = net.input([2, 4, 6, 5])
    y = net.conv_transpose(x, 4, 6) if op == "ConvTranspose" else net.conv(x, 4, 6)
    y = net.bn(y, 6) if op == "bn" else y
    y = net.add(y, 6) if op == "Add" else y
    net.output(Norm("InstanceNormalization", 17, [2, 6, 4, 3])(net, y))
    folded = assert_harmless(net.model())
    assert [len(node.input) for node in folded.graph.node] == [2, 3]


def test_a_bias_in_front_of_a_spelled_out_instance_norm_is_dropped():
    net = Net("spelled")
    y = net.conv(net.input([2, 4, 6, 5]), 4, 6)
    d = net.node("Sub", [y, net.node("ReduceMean", [y], axes=[2, 3])])
    var = net.node("ReduceMean", [net.node("Mul", [d, d])], axes=[2, 3])
    root = net.node("Sqrt", [net.node("Add", [var, net.const(0.05)])])
    net.output(net.node("Div", [d, root]))
    assert len(assert_harmless(net.model()).graph.node[0].input) == 2


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_a_bias_in_front_of_a_group_norm_must_agree_in_groups(groups):
    for agrees in (True, False):
        net = Net("group_bias", 21)
        w = net.const(net.weight(6, 4, 1, 1))
        b = np.repeat(net.shift(groups), 6 // groups) if agrees else net.shift(6)
        y = net.node("Conv", [net.input([2, 4, 3, 3]), w, net.const(b)])
        net.output(Norm("GroupNormalization", 21, [2, 6, 3, 3], groups=groups)(net, y))
        folded = assert_harmless(net.model())
        assert len(folded.graph.node[0].input) == (2 if agrees or groups == 6 else 3)


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_a_gemm_bias_in_front_of_a_layer_norm_must_be_uniform(beta):
    for bias, left in ((np.full(4, 0.7), 2), (np.linspace(0, 1, 4), 3)):
        net = Net("gemm")
        weights = [net.const(net.weight(3, 4)), net.const(bias)]
        y = net.node("Gemm", [net.input([2, 3]), *weights], beta=beta)
        net.output(Norm("LayerNormalization", 17, [2, 4])(net, y))
        assert len(assert_harmless(net.model()).graph.node[0].input) == left


def test_a_bias_that_others_read_or_that_relu_sees_stays():
    norm = Norm("InstanceNormalization", 17, [2, 6, 4, 3])
    for reader in ("output", "other", "relu"):
        net = Net(f"kept{reader}")
        y = net.conv(net.input([2, 4, 6, 5]), 4, 6)
        z = net.node("Relu", [y]) if reader == "relu" else y
        net.output(norm(net, z))
        if reader != "relu":
            net.output(y if reader == "output" else net.node("Tanh", [y]))
        assert len(assert_harmless(net.model()).graph.node[0].input) == 3


def test_a_shared_bias_is_dropped_from_one_reader():
    net = Net("shared")
    x, b = net.input([2, 4, 6, 5]), net.const(net.shift(6), "b")
    for place in range(2):
        y = net.node("Conv", [x, net.const(net.weight(6, 4, 3, 3)), b], f"c{place}")
        net.output(Norm("InstanceNormalization", 17, [2, 6, 4, 3])(net, y) if place else y)
    folded = assert_harmless(net.model())
    assert [len(n.input) for n in folded.graph.node] == [3, 2, 3]
    assert "b" in {t.name for t in folded.graph.initializer}


def test_skip_keeps_a_bias():
    net = Net("skipped")
    y = net.conv(net.input([2, 4, 6, 5]), 4, 6)
    net.output(Norm("InstanceNormalization", 17, [2, 6, 4, 3])(net, y))
    for choice in ({"skip": ["Conv"]}, {"only": ["Mul"]}, {"skip": ["Instance*"]}):
        assert bnfold.fold(net.model(), verify=False, **choice).report.steps == ()


# ------------------------------------------------------------------------ tails: --norms


def behind(net: Net, y: str, shape: Sequence[int], layer: str) -> str:
    """A linear layer that reads a value of that shape, and no more."""
    last, c = shape[-1], shape[1]
    if layer == "Gemm":
        y = net.node("Reshape", [y, net.ints(-1, last)])
        return net.node("Gemm", [y, net.const(net.weight(last, 3)), net.const(net.shift(3))])
    if layer == "MatMul":
        y = net.node("MatMul", [y, net.const(net.weight(last, 3))])
        return net.node("Add", [y, net.const(net.shift(3))])
    kernel = [1] * (len(shape) - 2) if layer == "Conv" else [3] * (len(shape) - 2)
    pads = {"pads": [1] * (2 * len(kernel))} if layer == "padded" else {}
    return net.conv(y, c, 3, kernel=kernel, **pads)


def with_norms(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bnfold.FoldReport]:
    result = bnfold.fold(model, verify=False, norms=True)
    folded = result.to_proto()
    assert judge.wrong_outputs(model, folded) == []
    assert judge.newly_invalid(model, folded) == ""
    assert judge.node_count(folded) <= judge.node_count(model)
    assert bnfold.fold(folded, verify=False, norms=True).report.steps == ()
    return folded, result.report


@given(norms(), st.sampled_from(["Gemm", "MatMul", "Conv", "padded"]), st.sampled_from(DTYPES))
@example(Norm("RMSNormalization", 23, [2, 3, 4]), "MatMul", "fp32")
def test_tails_go_down_harmlessly(norm, layer, dtype):
    net = Net("tails", norm.opset, dtype)
    net.output(behind(net, norm(net, net.input(norm.shape)), norm.shape, layer))
    model = net.model()
    assert bnfold.fold(model, verify=False).report.steps == ()
    with_norms(model)


@pytest.mark.parametrize(("kind", "opset"), KINDS)
@pytest.mark.parametrize("layer", ["MatMul", "Gemm", "Conv", "padded"])
def test_which_part_of_a_tail_goes(kind, opset, layer):
    norm = Norm(kind, opset, [2, 4, 3])
    net = Net("parts", opset)
    net.output(behind(net, norm(net, net.input(norm.shape)), norm.shape, layer))
    folded, report = with_norms(net.model())
    rows = kind[:2] in {"La", "RM"}
    if rows != (layer in {"MatMul", "Gemm"}):
        assert [stay.rule for stay in report.stays if stay.rule == kind] == [kind]
        return
    values = {t.name: onnx.numpy_helper.to_array(t) for t in folded.graph.initializer}
    node = next(n for n in folded.graph.node if n.op_type == kind)
    (step,) = report.steps
    assert (values[node.input[1]] == 1).all()
    if layer == "padded":
        assert step.move == "scale down"
        assert (values[node.input[2]] != 0).all()
        return
    assert step.move == "down"
    if rows:
        assert len(node.input) == 2
    else:
        assert (values[node.input[2]] == 0).all()


def test_one_tail_for_three_readers():
    """Query, key and value read one LayerNormalization."""
    net = Net("qkv")
    y = Norm("LayerNormalization", 17, [2, 3, 4])(net, net.input([2, 3, 4]))
    for _ in range(3):
        net.output(behind(net, y, [2, 3, 4], "MatMul"))
    folded, report = with_norms(net.model())
    assert len(folded.graph.node[0].input) == 2
    assert len(report.steps[0].absorbed_by) == 3


@pytest.mark.parametrize("turned", [True, False])
def test_a_large_weight_that_others_read_is_not_stored_twice(turned):
    """The embedding table that is also the last layer's weight."""
    for size, shared in ((300, True), (300, False), (9, True)):
        net = Net("tied")
        table = net.const(net.weight(size, size))
        y = net.node("Gather", [table if shared else net.const(net.weight(size, size)), "ids"])
        net.input([2, 3], "ids", "int64")
        y = Norm("LayerNormalization", 17, [2, 3, size])(net, net.node("Tanh", [y]))
        weight = net.node("Transpose", [table]) if turned else table
        net.output(net.add(net.node("MatMul", [y, weight]), size, 3, 2))
        _, report = with_norms(net.model())
        stays = [s for s in report.stays if s.rule == "LayerNormalization"]
        assert bool(stays) == (size == 300 and shared)
        assert all(r.code is Code.NO_GAIN for stay in stays for r in stay.refusals)


def test_a_tail_that_is_a_graph_output_stays():
    net = Net("out")
    y = Norm("LayerNormalization", 17, [2, 3, 4])(net, net.input([2, 3, 4]))
    net.output(y, behind(net, y, [2, 3, 4], "MatMul"))
    _, report = with_norms(net.model())
    (stay,) = (s for s in report.stays if s.rule == "LayerNormalization")
    assert {r.code for r in stay.refusals} == {Code.GRAPH_OUTPUT}


def test_a_scale_along_several_axes_stays():
    net = Net("several")
    y = Norm("LayerNormalization", 17, [2, 3, 4], axis=1)(net, net.input([2, 3, 4]))
    net.output(behind(net, y, [2, 3, 4], "MatMul"))
    _, report = with_norms(net.model())
    (stay,) = (s for s in report.stays if s.rule == "LayerNormalization")
    assert {r.code for r in stay.refusals} == {Code.SEVERAL_AXES}
