"""Conv, ConvTranspose, Gemm and MatMul absorb maps on both sides, each under its condition."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bnfold
from bnfold.records import Code
from tests.battery import judge
from tests.battery.graphs import Net
from tests.reference64 import run64
from tests.rules.around import (
    Map,
    assert_carried,
    assert_does_not_commute,
    assert_stays,
    axis_map,
    maps,
    shape_of,
)

Operator = Callable[[Net, str], str]
DTYPES = ("fp32", "fp16", "bf16", "fp64")
BIASES = (True, False, None)  # there, not there, the empty string


def _behind(op: Operator, shape: Sequence[int], out: Map, dtype: str) -> onnx.ModelProto:
    net = Net("behind", dtype=dtype)
    y = op(net, net.input(shape))
    net.output(out.write(net, y, len(shape_of(net, y))))
    return net.model()


def _in_front(op: Operator, shape: Sequence[int], into: Map, dtype: str) -> onnx.ModelProto:
    net = Net("in front", dtype=dtype)
    net.output(op(net, into.write(net, net.input(shape), len(shape))))
    return net.model()


def _sizes(op: Operator, shape: Sequence[int]) -> list[int]:
    net = Net("sizes")
    return shape_of(net, op(net, net.input(shape)))


# ------------------------------------------------------------------------ convolutions


@st.composite
def _convolutions(draw, *, transposed: bool, padded: bool | None = None):
    """A drawn convolution of 1 to 3 spatial axes, and the shape of its input."""
    rank = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))
    inputs, outputs = (groups * draw(st.integers(1, 2)) for _ in range(2))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    attributes = {
        "strides": [draw(st.integers(1, 2)) for _ in range(rank)],
        "dilations": [draw(st.integers(1, 2)) for _ in range(rank)],
    }
    if padded or (padded is None and draw(st.booleans())):
        pads = [draw(st.integers(0, 1)) for _ in range(2 * rank)]
        pads[0] = 1 if padded else pads[0]
        attributes["pads"] = pads
    options = {"kernel": kernel, "groups": groups, "bias": draw(st.sampled_from(BIASES))}

    def operator(net: Net, x: str) -> str:
        build = net.conv_transpose if transposed else net.conv
        return build(x, inputs, outputs, **options, **attributes)

    return operator, [2, inputs, *(6 for _ in range(rank))], outputs


@pytest.mark.parametrize("transposed", [False, True], ids=["Conv", "ConvTranspose"])
def test_convolutions_absorb_every_map_behind_them(transposed):
    @given(st.data(), _convolutions(transposed=transposed), st.sampled_from(DTYPES))
    def law(data, drawn, dtype):
        operator, shape, outputs = drawn
        behind = data.draw(maps(outputs, data.draw(st.sampled_from([None, 1]))))
        assert_carried(_behind(operator, shape, behind, dtype), behind.nodes)

    law()


@pytest.mark.parametrize("transposed", [False, True], ids=["Conv", "ConvTranspose"])
def test_convolutions_absorb_every_scale_in_front_of_them(transposed):
    @given(st.data(), _convolutions(transposed=transposed), st.sampled_from(DTYPES))
    def law(data, drawn, dtype):
        operator, shape, _ = drawn
        axis = data.draw(st.sampled_from([None, 1]))
        into = data.draw(maps(shape[1], axis, shift=False))
        assert_carried(_in_front(operator, shape, into, dtype), 1)

    law()


@given(st.data(), _convolutions(transposed=False, padded=False), st.sampled_from(DTYPES))
def test_a_conv_without_padding_absorbs_shifts_in_front_of_it(data, drawn, dtype):
    operator, shape, _ = drawn
    into = data.draw(maps(shape[1], data.draw(st.sampled_from([None, 1]))))
    assert_carried(_in_front(operator, shape, into, dtype), into.nodes)


@given(_convolutions(transposed=False, padded=True))
def test_a_shift_in_front_of_padding_stays(drawn):
    operator, shape, _ = drawn
    shift = Map(1, None, np.linspace(0.5, 1.5, shape[1]))
    model = _in_front(operator, shape, shift, "fp32")
    assert_stays(model, Code.SHIFT_MEETS_PADDING)
    assert _naive_bias_is_wrong(model)


def _naive_bias_is_wrong(model: onnx.ModelProto) -> bool:
    """Whether the model differs from one that counts the shift at every tap, padded or not."""
    naive = onnx.ModelProto()
    naive.CopyFrom(model)
    add, conv = naive.graph.node[-2:]
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in naive.graph.initializer}
    weight, shift = arrays[conv.input[1]], arrays[add.input[1]].reshape(-1)
    groups = next((a.i for a in conv.attribute if a.name == "group"), 1)
    outputs, per_group = weight.shape[:2]
    rows = shift.reshape(groups, per_group).repeat(outputs // groups, axis=0)
    taps = weight.reshape(outputs, per_group, -1).sum(axis=2)
    bias = (taps * rows).sum(axis=1)
    old = conv.input[2] if len(conv.input) > 2 else ""
    bias = bias + (arrays[old] if old else 0.0)
    naive.graph.initializer.append(onnx.numpy_helper.from_array(bias.astype("f4"), "naive"))
    conv.input[:] = [add.input[0], conv.input[1], "naive"]
    naive.graph.node.remove(add)
    return judge.wrong_outputs(model, naive) != []


def test_a_shift_in_front_of_a_conv_transpose_stays():
    """The outermost outputs see fewer taps than the inner ones."""

    def operator(net: Net, x: str) -> str:
        return net.conv_transpose(x, 3, 2, kernel=(3,))

    shift = Map(1, None, np.array([0.5, 1.0, 1.5]))
    assert_stays(_in_front(operator, [2, 3, 5], shift, "fp32"), Code.SHIFT_NOT_CONSTANT)
    net = Net("taps")
    net.output(operator(net, net.input([1, 3, 5])))
    model = net.model()
    (zero,) = run64(model, {"x": np.zeros((1, 3, 5))}).values()
    (one,) = run64(model, {"x": np.ones((1, 3, 5))}).values()
    assert np.ptp(one - zero, axis=2).max() > 0.1


@pytest.mark.parametrize("transposed", [False, True])
def test_a_map_along_a_spatial_axis_stays(transposed):
    def operator(net: Net, x: str) -> str:
        build = net.conv_transpose if transposed else net.conv
        return build(x, 3, 3, kernel=(3, 3), pads=[1] * 4)

    along = Map(3, np.linspace(0.5, 2, 6), None)
    assert_stays(_behind(operator, [2, 3, 5, 6], along, "fp32"), Code.WRONG_AXIS)
    assert_stays(_in_front(operator, [2, 3, 5, 6], along, "fp32"), Code.WRONG_AXIS)
    assert_does_not_commute(operator, [2, 3, 5, 6], along)


# -------------------------------------------------------------------- products of matrices


@st.composite
def _gemms(draw):
    """A drawn Gemm with the data on either side, and the axes that its weight has."""
    rows, inner, columns = (draw(st.integers(2, 4)) for _ in range(3))
    left = draw(st.booleans())
    data_turned, weight_turned = draw(st.booleans()), draw(st.booleans())
    addend = draw(st.sampled_from(["none", "empty", "scalar", "row", "column", "full"]))
    shapes = {"scalar": (), "row": (columns,), "column": (rows, 1), "full": (rows, columns)}
    attributes = {
        "alpha": draw(st.sampled_from([1.0, 0.5, -2.0])),
        "beta": draw(st.sampled_from([1.0, 0.5, -2.0, 0.0])),
        "transA": int(weight_turned if left else data_turned),
        "transB": int(data_turned if left else weight_turned),
    }
    data_shape = [inner, columns] if left else [rows, inner]
    weight_shape = [rows, inner] if left else [inner, columns]

    def operator(net: Net, x: str) -> str:
        w = net.const(net.weight(*(weight_shape[::-1] if weight_turned else weight_shape)))
        inputs = [w, x] if left else [x, w]
        if addend == "empty":
            inputs.append("")
        elif addend != "none":
            inputs.append(net.const(net.rng.normal(size=shapes[addend])))
        return net.node("Gemm", inputs, **attributes)

    shape = data_shape[::-1] if data_turned else data_shape
    contracted = (0 if left else 1) if not data_turned else (1 if left else 0)
    return operator, shape, (0 if left else 1), contracted


@given(st.data(), _gemms(), st.sampled_from(DTYPES))
def test_gemm_absorbs_maps_along_its_weight(data, drawn, dtype):
    operator, shape, out_axis, _ = drawn
    sizes = _sizes(operator, shape)
    behind = axis_map(data.draw, sizes, [out_axis])
    assert_carried(_behind(operator, shape, behind, dtype), behind.nodes)


@given(st.data(), _gemms(), st.sampled_from(DTYPES))
def test_gemm_absorbs_maps_along_the_axis_it_sums_over(data, drawn, dtype):
    operator, shape, _, contracted = drawn
    into = axis_map(data.draw, shape, [contracted])
    assert_carried(_in_front(operator, shape, into, dtype), into.nodes)


@given(_gemms())
def test_a_map_along_the_rows_of_the_data_stays(drawn):
    operator, shape, _, contracted = drawn
    other = 1 - contracted
    along = Map(other, None, np.linspace(0.5, 2.0, shape[other]))
    assert_stays(_in_front(operator, shape, along, "fp32"), Code.WRONG_AXIS)


@st.composite
def _matmuls(draw):
    """A drawn MatMul by a constant: vectors, matrices and stacks, the data on either side."""
    left = draw(st.booleans())
    inner, outer = 3, 4
    stack = draw(st.sampled_from([(), (2,), (2, 5)]))
    vector = draw(st.sampled_from(["none", "none", "none", "data", "weight"]))
    weight_shape = (inner,) if vector == "weight" else (outer, inner)[:: 1 if left else -1]
    data_shape = (inner, 2) if left else (2, inner)
    data_shape = (inner,) if vector == "data" else (*stack, *data_shape)

    def operator(net: Net, x: str) -> str:
        w = net.const(net.rng.normal(size=weight_shape))
        return net.node("MatMul", [w, x] if left else [x, w])

    back = (2 if left else 1) if vector != "data" else 1
    out_axis = None if vector == "weight" else back
    contracted = len(data_shape) - ((2 if left else 1) if vector != "data" else 1)
    return operator, list(data_shape), out_axis, contracted


@given(st.data(), _matmuls(), st.sampled_from(DTYPES))
def test_matmul_absorbs_scales_along_its_weight(data, drawn, dtype):
    operator, shape, back, _ = drawn
    sizes = _sizes(operator, shape)
    axes = [] if back is None else [len(sizes) - back]
    behind = axis_map(data.draw, sizes, axes, shift=False)
    assert_carried(_behind(operator, shape, behind, dtype), 1)


@given(st.data(), _matmuls(), st.sampled_from(DTYPES))
def test_matmul_absorbs_scales_along_the_axis_it_sums_over(data, drawn, dtype):
    operator, shape, _, contracted = drawn
    into = axis_map(data.draw, shape, [contracted], shift=False)
    assert_carried(_in_front(operator, shape, into, dtype), 1)


@given(st.data(), st.booleans(), st.booleans())
def test_a_product_of_two_matrices_takes_shifts_as_a_gemm(data, left, front):
    def operator(net: Net, x: str) -> str:
        w = net.const(net.weight(4, 3) if left else net.weight(3, 4))
        return net.node("MatMul", [w, x] if left else [x, w])

    shape = [3, 2] if left else [2, 3]
    axis = 0 if left else 1
    if front:
        drawn = axis_map(data.draw, shape, [axis])
        model = _in_front(operator, shape, drawn, "fp32")
    else:
        drawn = axis_map(data.draw, _sizes(operator, shape), [axis])
        model = _behind(operator, shape, drawn, "fp32")
    folded = assert_carried(model, drawn.nodes)
    kinds = {node.op_type for node in folded.graph.node}
    assert kinds == ({"MatMul"} if drawn.shift is None else {"Gemm"})


@given(st.integers(1, 3), st.booleans(), st.integers(0, 2**16))
def test_rows_that_are_laid_out_as_a_matrix_are_laid_out_first(count, flatten, seed):
    rng = np.random.default_rng(seed)
    stack = [int(n) for n in rng.integers(1, 4, count)]
    net = Net(f"rows{seed}")
    x = net.input([*stack, 2, 3])
    y = net.node("MatMul", [x, net.const(net.weight(3, 4))])
    if flatten:
        y = net.node("Flatten", [y], axis=len(stack) + 1)
    else:
        y = net.node("Reshape", [y, net.ints(-1, 4)])
    net.output(Map(1, net.scale(4), net.shift(4)).write(net, y, 2))
    folded = assert_carried(net.model(), 2)
    assert [node.op_type for node in folded.graph.node] == ["Reshape", "Gemm"]


def test_a_stack_that_others_read_as_it_is_is_not_laid_out_first():
    net = Net("read twice")
    y = net.node("MatMul", [net.input([2, 5, 3]), net.const(net.weight(3, 4))])
    z = net.node("Reshape", [y, net.ints(-1, 4)])
    net.output(net.bn(z, 4), net.node("Tanh", [y]))
    assert_stays(net.model(), Code.SHARED_VALUE)


def test_a_shift_behind_a_stack_of_products_stays():
    def operator(net: Net, x: str) -> str:
        return net.node("MatMul", [x, net.const(net.weight(3, 4))])

    shift = Map(2, None, np.linspace(0.5, 2.0, 4))
    assert_stays(_behind(operator, [2, 5, 3], shift, "fp32"), Code.NEEDS_SCALE_ONLY)
    zero = np.zeros((2, 5, 3))
    net = Net("zero")
    net.output(operator(net, net.input([2, 5, 3])))
    (y,) = run64(net.model(), {"x": zero}).values()
    assert (y == 0).all()  # no weight makes a MatMul of zeros anything else


# ------------------------------------------------------------- products of two computed values


@given(st.data(), st.integers(0, 2), st.sampled_from(["A", "B"]))
def test_a_scale_passes_a_product_of_computed_values(data, stacked, side):
    """Rows of A, columns of B, one number for all, and axes of the stack."""
    stack = [2, 3][:stacked]
    shapes = {"A": [*stack, 4, 3], "B": [*stack, 3, 5]}
    net = Net("computed")
    factors = {}
    own = [*range(stacked), stacked + (0 if side == "A" else 1)]
    drawn = axis_map(data.draw, shapes[side], own, shift=False)
    for name, shape in shapes.items():
        x = net.input(shape, name)
        weight = net.const(net.rng.uniform(0.5, 1.5, shape))
        y = net.node("Mul", [net.node("Tanh", [x]), weight])
        factors[name] = drawn.write(net, y, len(shape)) if name == side else y
    y = net.node("MatMul", [factors["A"], factors["B"]])
    net.output(net.node("Tanh", [y]))
    model = net.model()
    folded = bnfold.fold(model, verify=False).to_proto()
    assert judge.wrong_outputs(model, folded) == []
    assert judge.affine_count(folded) == judge.affine_count(model) - 1


def test_a_scale_along_the_summed_axis_of_computed_values_stays():
    net = Net("summed")
    a = net.node("Tanh", [net.input([4, 3], "A")])
    b = net.node("Tanh", [net.input([3, 5], "B")])
    scaled = Map(1, np.array([0.5, 2.0, 3.0]), None).write(net, a, 2)
    net.output(net.node("Tanh", [net.node("MatMul", [scaled, b])]))
    model = net.model()
    assert bnfold.fold(model, verify=False).report.steps == ()
    feeds = judge.inputs_of(model, 0)
    product = np.tanh(feeds["A"]) @ np.tanh(feeds["B"])
    true = (np.tanh(feeds["A"]) * [0.5, 2.0, 3.0]) @ np.tanh(feeds["B"])
    rows = true / product
    assert np.ptp(rows, axis=1).max() > 0.1  # no scale of the rows of the product,
    assert np.ptp(rows, axis=0).max() > 0.1  # and none of its columns


def test_a_shift_does_not_pass_a_product_of_computed_values():
    net = Net("shifted")
    a = net.node("Tanh", [net.input([4, 3], "A")])
    b = net.node("Tanh", [net.input([3, 5], "B")])
    y = net.node("MatMul", [Map(None, None, np.array(0.5)).write(net, a, 2), b])
    net.output(net.node("Tanh", [y]))
    model = net.model()
    assert_stays(model, Code.NEEDS_SCALE_ONLY)
    feeds = judge.inputs_of(model, 0)
    added = np.full((4, 3), 0.5) @ np.tanh(feeds["B"])
    assert np.ptp(added, axis=1).min() > 0.01  # what it adds depends on B: no constant shift


# ------------------------------------------------------------------------- what all refuse


def _weight_from_input(net: Net, x: str) -> str:
    net.nodes.append(onnx.helper.make_node("Identity", [net.input([3, 3, 1], "W")], ["w"]))
    return net.conv(x, 3, 3, weight="w", bias=False)


def test_a_weight_that_is_computed_stays():
    scale = Map(1, np.array([0.5, 2.0, 3.0]), None)
    for build in (_behind, _in_front):
        assert_stays(build(_weight_from_input, [2, 3, 5], scale, "fp32"), Code.DYNAMIC_WEIGHT)


def test_a_weight_that_callers_may_override_stays():
    net = Net("override", ir=8)
    weight = net.const(net.weight(3, 3, 1), "w")
    net.inputs.append(onnx.helper.make_tensor_value_info("w", 1, [3, 3, 1]))
    net.output(net.mul(net.conv(net.input([2, 3, 5]), 3, 3, weight=weight, bias=False), 3, 3))
    assert_stays(net.model(), Code.OVERRIDABLE)
