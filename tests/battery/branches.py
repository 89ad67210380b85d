"""An If whose condition is a constant is its branch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.battery.graphs import Case, Net, folds, stays

C = 6
FLOAT = TensorProto.FLOAT


def _branch(name: str, build: Callable[[Net], str], seed: str) -> onnx.GraphProto:
    net = Net(seed, prefix="in_")
    out = build(net)
    return helper.make_graph(
        net.nodes,
        name,
        [],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)],
        net.initializer_list(),
    )


def _close(net: Net, value: str, shape: list[int | str]) -> onnx.ModelProto:
    net.output(value, shape=shape)
    return net.model()


def constant_if(*, taken: bool, clash: bool, as_node: bool) -> onnx.ModelProto:
    """A BatchNormalization inside an If whose condition is stored."""
    net = Net(f"if{taken}{clash}")
    y = net.conv(net.input(["N", 4, 7, 5]), 4, C, output="conv_out")
    net.as_nodes = as_node
    condition = net.const(np.asarray(taken), "condition", "bool")
    net.as_nodes = False
    then = _branch("then", lambda n: n.bn(y, C), "then")
    other = _branch("other", lambda n: n.mul(y, C), "else" if clash else "elsewhere")
    if not clash:
        _rename(other, "_else")
    out = net.node("If", [condition], then_branch=then, else_branch=other)
    return _close(net, net.node("Relu", [out]), ["N", C, 5, 3])


def _rename(graph: onnx.GraphProto, suffix: str) -> None:
    own = {t.name for t in graph.initializer} | {o for n in graph.node for o in n.output}
    for node in graph.node:
        node.input[:] = [n + suffix if n in own else n for n in node.input]
        node.output[:] = [n + suffix for n in node.output]
    for item in (*graph.initializer, *graph.output):
        item.name += suffix


def nested_if() -> onnx.ModelProto:
    net = Net("nested_if")
    y = net.conv(net.input(["N", 4, 7, 5]), 4, C, output="conv_out")
    yes, no = (net.const(np.asarray(v), f"is_{v}", "bool") for v in (True, False))
    deepest = _branch("deepest", lambda n: n.bn(y, C), "deepest")
    dead = _branch("dead", lambda n: n.add(y, C), "dead")
    inner = Net("inner", prefix="middle_")
    inner.node("If", [no], "inner_out", then_branch=dead, else_branch=deepest)
    then = helper.make_graph(
        inner.nodes,
        "inner",
        [],
        [helper.make_tensor_value_info("inner_out", TensorProto.FLOAT, None)],
    )
    other = _branch("other", lambda n: n.node("Identity", [y], "other_out"), "other")
    out = net.node("If", [yes], then_branch=then, else_branch=other)
    return _close(net, net.node("Relu", [out]), ["N", C, 5, 3])


def two_ifs_same_names() -> onnx.ModelProto:
    """Two inlined branches bring the same inner names."""
    net = Net("two_ifs")
    y = net.input(["N", 4, 7, 5])
    yes = net.const(np.asarray([True]), "yes", "bool")
    for turn in range(2):
        y = net.conv(y, 4, 4, output=f"conv_{turn}", pads=[1, 1, 1, 1])
        then = _branch("then", partial(Net.bn, x=y, c=4, output="inner"), f"then{turn}")
        other = _branch("other", partial(Net.mul, x=y, c=4), f"else{turn}")
        y = net.node("If", [yes], f"if_{turn}", then_branch=then, else_branch=other)
    return _close(net, net.node("Relu", [y]), ["N", 4, 7, 5])


def if_output_is_graph_output() -> onnx.ModelProto:
    net = Net("if_output")
    y = net.conv(net.input(["N", 4, 7, 5]), 4, C, output="conv_out")
    yes = net.const(np.ones((), bool), "yes", "bool")
    then = _branch("then", lambda n: n.bn(y, C), "then2")
    other = _branch("other", lambda n: n.mul(y, C), "else2")
    out = net.node("If", [yes], "y", then_branch=then, else_branch=other)
    return _close(net, out, ["N", C, 5, 3])


def dynamic_if() -> onnx.ModelProto:
    """The condition is an input: both branches stay, the conv is read by both."""
    net = Net("dynamic_if")
    y = net.conv(net.input(["N", 4, 7, 5]), 4, C, output="conv_out")
    condition = net.input([], "condition", "bool")
    then = _branch("then", lambda n: n.bn(y, C), "then3")
    other = _branch("other", lambda n: n.mul(y, C), "else3")
    out = net.node("If", [condition], then_branch=then, else_branch=other)
    return _close(net, net.node("Relu", [out]), ["N", C, 5, 3])


def conv_in_dynamic_branch() -> onnx.ModelProto:
    """Conv and BatchNormalization both inside a branch that stays."""
    net = Net("conv_in_branch")
    x = net.input(["N", 4, 7, 5])
    condition = net.input([], "condition", "bool")
    then = _branch("then", lambda n: n.bn(n.conv(x, 4, C), C), "then4")
    other = _branch("other", lambda n: n.mul(n.conv(x, 4, C), C), "else4")
    _rename(other, "_else")
    out = net.node("If", [condition], then_branch=then, else_branch=other)
    return _close(net, net.node("Relu", [out]), ["N", C, 5, 3])


def _if_cases() -> list[Case]:
    return [
        *(
            folds(
                f"constants/if/{taken}/{label}",
                partial(constant_if, taken=taken, clash=clash, as_node=node),
                0,
            )
            for taken in (True, False)
            for label, clash, node in (
                ("apart", False, False),
                ("clash", True, False),
                ("node", False, True),
            )
        ),
        folds("constants/if/nested", nested_if, 0),
        folds("constants/if/two_with_the_same_names", two_ifs_same_names, 0),
        folds("constants/if/graph_output", if_output_is_graph_output, 0),
        stays("constants/if/dynamic", dynamic_if, None, "two readers disagree"),
        folds("constants/if/conv_inside_dynamic", conv_in_dynamic_branch, None),
    ]


def cases() -> list[Case]:
    return _if_cases()
