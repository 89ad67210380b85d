"""The battery's judge is tested: spoiled folds must be convicted, true folds acquitted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from tests.battery import direct, judge, linear

Edit = Callable[[np.ndarray], np.ndarray]
Spoil = Callable[[onnx.ModelProto], None]


def change(
    model: onnx.ModelProto, slot: int, edit: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Edit the constant at an input slot of the first node."""
    name = model.graph.node[0].input[slot]
    stored = next(t for t in model.graph.initializer if t.name == name)
    array = numpy_helper.to_array(stored)
    edited = edit(array.astype(np.float64)).astype(array.dtype)
    stored.CopyFrom(numpy_helper.from_array(edited, name))


def one_channel(array: np.ndarray) -> np.ndarray:
    array[1] *= 1.01
    return array


def one_tap(array: np.ndarray) -> np.ndarray:
    array[2, 1, 0, 0] += 1e-4
    return array


SPOILS: dict[str, Spoil] = {
    "one channel by 1 %": lambda m: change(m, 1, one_channel),
    "one tap": lambda m: change(m, 1, one_tap),
    "sign": lambda m: change(m, 1, np.negative),
    "order of channels": lambda m: change(m, 1, lambda w: w[::-1]),
    "bias of one channel": lambda m: change(m, 2, one_channel),
    "no bias": lambda m: change(m, 2, np.zeros_like),
    "fifty units in the last place": lambda m: change(m, 2, lambda b: b * (1 + 50 * 2.0**-24)),
}


@pytest.mark.parametrize("name", SPOILS)
@pytest.mark.parametrize("kind", ["padded", "grouped", "no_bias"])
def test_spoiled_folds_are_convicted(name, kind):
    original = direct.conv_below("bn", kind)
    folded = bnfold.fold(original, verify=False).to_proto()
    assert judge.wrong_outputs(original, folded) == []
    SPOILS[name](folded)
    assert judge.wrong_outputs(original, folded) != []


def test_a_forgotten_epsilon_is_convicted():
    original = direct.default_epsilon(9, explicit=False)
    spoiled = onnx.ModelProto()
    spoiled.CopyFrom(original)
    node = next(n for n in spoiled.graph.node if n.op_type == "BatchNormalization")
    node.attribute.append(onnx.helper.make_attribute("epsilon", 1e-6))
    assert judge.wrong_outputs(original, spoiled) != []


def test_padding_that_meets_a_shift_is_convicted():
    """The shift above a zero-padded conv, folded as if there were no padding."""
    original = direct.padded_above("add", "padded")
    spoiled = onnx.ModelProto()
    spoiled.CopyFrom(original)
    add, conv = spoiled.graph.node
    arrays = {t.name: numpy_helper.to_array(t) for t in spoiled.graph.initializer}
    shift = np.einsum("oihw,i->o", arrays[conv.input[1]], arrays[add.input[1]].reshape(-1))
    change_name = conv.input[2]
    bias = next(t for t in spoiled.graph.initializer if t.name == change_name)
    bias.CopyFrom(numpy_helper.from_array(arrays[change_name] + shift, change_name))
    conv.input[0] = add.input[0]
    spoiled.graph.node.remove(add)
    assert judge.wrong_outputs(original, spoiled) != []


@pytest.mark.parametrize("dtype", ["fp16", "fp32", "fp64"])
def test_rounding_alone_is_acquitted(dtype):
    stored = linear.gemm_below("bn", "n", "alpha_beta", 17, dtype)
    exact = judge.perturbed(stored, 99)
    assert judge.wrong_outputs(exact, stored) == []


def test_counting_of_affine_nodes():
    assert judge.affine_count(direct.conv_below("spelled", "padded")) == 4
    assert judge.affine_count(direct.conv_below("bn_mul_add", "padded")) == 3
    assert judge.affine_count(direct.both_sides("sub", "neg")) == 2
