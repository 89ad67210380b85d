"""Maps on both sides of the border of a subgraph: If, Loop and Scan that stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.battery.graphs import Case, Net, apply, folds, stays

C = 6
SHAPE = ["N", C, 5, 3]


def _info(name: str, shape: Sequence[int | str] | None, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _body(
    name: str,
    build: Callable[[Net], Sequence[str]],
    inputs: Sequence[onnx.ValueInfoProto] = (),
    kinds: Sequence[int] = (TensorProto.FLOAT,),
) -> onnx.GraphProto:
    net = Net(name, prefix=f"{name}_")
    results = build(net)
    outputs = [_info(out, None, kind) for out, kind in zip(results, kinds, strict=True)]
    return helper.make_graph(net.nodes, name, inputs, outputs, net.initializer_list())


def _if(net: Net, then: Callable[[Net], str], other: Callable[[Net], str]) -> str:
    condition = net.input([], "condition", "bool")
    return net.node(
        "If",
        [condition],
        then_branch=_body("then", lambda n: [then(n)]),
        else_branch=_body("other", lambda n: [other(n)]),
    )


def behind_if(source: str, *, shared: bool = False) -> onnx.ModelProto:
    """Both branches end in a convolution; the map behind goes into both."""
    net = Net(f"behind_if{source}{shared}")
    x = net.input(["N", 4, 7, 5])
    y = _if(
        net,
        lambda n: n.conv(x, 4, C),
        lambda n: n.conv(n.node("Relu", [x]), 4, C, bias=False),
    )
    net.output(apply(net, source, y, C), shape=SHAPE)
    if shared:
        net.output(net.node("Relu", [y]), shape=SHAPE)
    return net.model()


def behind_half_an_if(source: str) -> onnx.ModelProto:
    """One branch ends in a convolution, the other gives its input: the map stays."""
    net = Net(f"half_if{source}")
    x = net.input(["N", C, 5, 3])
    y = _if(net, lambda n: n.conv(x, C, C, pads=[1] * 4), lambda n: n.node("Sigmoid", [x]))
    net.output(apply(net, source, y, C), shape=SHAPE)
    return net.model()


def in_front_of_if(source: str) -> onnx.ModelProto:
    """The map stands outside, the convolutions that read it inside of the branches."""
    net = Net(f"in_front_of_if{source}")
    x = apply(net, source, net.input(["N", 4, 7, 5]), 4)
    net.output(_if(net, lambda n: n.conv(x, 4, C), lambda n: n.conv(x, 4, C)), shape=SHAPE)
    return net.model()


def from_inside_of_if(source: str) -> onnx.ModelProto:
    """Each branch applies a map to the convolution outside: only equal ones can go up."""
    net = Net(f"inside_if{source}")
    y = net.conv(net.input(["N", 4, 7, 5]), 4, C)
    net.output(
        _if(
            net,
            lambda n: n.node("Relu", [apply(n, source, y, C)]),
            lambda n: n.node("Tanh", [apply(n, source, y, C)]),
        ),
        shape=SHAPE,
    )
    return net.model()


def out_of_if(source: str, *, equal: bool) -> onnx.ModelProto:
    """Each branch ends in a map; equal ones go down to the convolution behind."""
    net = Net(f"out_of_if{source}{equal}")
    x = net.input(["N", C, 7, 5])
    scale = net.const(net.scale(C).reshape(-1, 1, 1))
    second = scale if equal else net.const(net.scale(C).reshape(-1, 1, 1))
    y = _if(
        net,
        lambda n: n.node("Mul", [n.node("Sigmoid", [x]), scale]),
        lambda n: n.node("Mul", [n.node("Tanh", [x]), second]),
    )
    net.shapes[y] = ["N", C, 7, 5]
    net.output(net.conv(y, C, 4), shape=["N", 4, 5, 3])
    return net.model()


def _loop(net: Net, results: Callable[[Net, str], Sequence[str]], count: int) -> list[str]:
    """A Loop of three turns with one state [N, C, 5, 3], and stacks behind it."""
    state = net.node("Relu", [net.input(["N", C, 5, 3], "state")])
    inputs = [
        _info("turn", [], TensorProto.INT64),
        _info("go", [], TensorProto.BOOL),
        _info("h", ["N", C, 5, 3]),
    ]
    kinds = [TensorProto.BOOL] + [TensorProto.FLOAT] * count

    def build(n: Net) -> list[str]:
        return [n.node("Identity", ["go"]), *results(n, "h")]

    body = _body("body", build, inputs, kinds)
    outputs = [net.fresh("loop") for _ in range(count)]
    trips = net.const(np.asarray(3), "trips", "int64")
    go = net.const(np.asarray(1), "start", "bool")
    return net.nodes_out("Loop", [trips, go, state], outputs, "", {"body": body})


def behind_loop_stack(source: str) -> onnx.ModelProto:
    """A stack of convolutions, one a turn: channels are axis 2 of the stack."""
    net = Net(f"loop_stack{source}")
    x = net.input(["N", 4, 7, 5])
    _, y = _loop(
        net,
        lambda n, h: [n.node("Tanh", [h]), n.conv(n.node("Mul", [x, x]), 4, C)],
        2,
    )
    net.output(apply(net, source, y, C, 5, 2), shape=["T", "N", C, 5, 3])
    return net.model()


def behind_loop_state(source: str) -> onnx.ModelProto:
    """The last state: the next turn would read the map too, so it stays."""
    net = Net(f"loop_state{source}")
    (y,) = _loop(net, lambda n, h: [n.conv(h, C, C, pads=[1] * 4)], 1)
    net.output(apply(net, source, y, C), shape=SHAPE)
    return net.model()


def invariant_of_loop(source: str) -> onnx.ModelProto:
    """A map outside, read by a convolution in every turn."""
    net = Net(f"loop_invariant{source}")
    x = apply(net, source, net.input(["N", 4, 7, 5]), 4)
    (y,) = _loop(net, lambda n, h: [n.node("Add", [h, n.conv(x, 4, C)])], 1)
    net.output(y, shape=SHAPE)
    return net.model()


def inside_of_loop(source: str) -> onnx.ModelProto:
    """A map in every turn, of a convolution outside: it leaves the loop as well."""
    net = Net(f"loop_inside{source}")
    x = net.conv(net.input(["N", 4, 7, 5]), 4, C)
    (y,) = _loop(net, lambda n, h: [n.node("Add", [h, apply(n, source, x, C)])], 1)
    net.output(y, shape=SHAPE)
    return net.model()


def behind_scan_stack(source: str, axis: int) -> onnx.ModelProto:
    """Scan over the first axis; the result of every turn is a matrix product."""
    net = Net(f"scan{source}{axis}")
    x = net.input([3, "N", 4], "steps")
    state = net.input(["N", C], "state")
    inputs = [_info("h", ["N", C]), _info("step", ["N", 4])]

    def build(n: Net) -> list[str]:
        return [
            n.node("Tanh", ["h"]),
            n.node("Gemm", ["step", n.const(n.weight(4, C)), n.const(n.shift(C))]),
        ]

    body = _body("body", build, inputs, [TensorProto.FLOAT] * 2)
    attributes = {"body": body, "num_scan_inputs": 1, "scan_output_axes": [axis]}
    _, y = net.nodes_out("Scan", [state, x], ["last", "stack"], "", attributes)
    net.shapes[y] = [["T", "N", C], ["N", "T", C], ["N", C, "T"]][axis]
    channels = 1 if axis == 2 else 2
    net.output(apply(net, source, y, C, 3, channels), shape=net.shapes[y])
    return net.model()


def cases() -> list[Case]:
    both = ("bn", "mul_add")
    return [
        *(
            folds(f"control/{name}/{source}", partial(build, source), left, scope="issue3")
            for source in both
            for name, build, left in (
                ("behind_if", behind_if, 0),
                ("in_front_of_if", in_front_of_if, 0),
                ("invariant_of_loop", invariant_of_loop, 0),
            )
        ),
        *(
            folds(f"control/{name}/mul_add", partial(build, "mul_add"), left, scope="issue3")
            for name, build, left in (
                ("behind_loop_stack", behind_loop_stack, 0),
                ("inside_of_loop", inside_of_loop, 0),
                ("scan/0", partial(behind_scan_stack, axis=0), 0),
                ("scan/1", partial(behind_scan_stack, axis=1), 0),
                ("scan/2", partial(behind_scan_stack, axis=2), 0),
            )
        ),
        folds("control/out_of_if", partial(out_of_if, "mul", equal=True), 0, scope="issue3"),
        stays("control/out_of_if/differ", partial(out_of_if, "mul", equal=False)),
        stays("control/behind_half_an_if", partial(behind_half_an_if, "bn")),
        stays("control/behind_if/shared", partial(behind_if, "bn", shared=True)),
        stays("control/behind_loop_state", partial(behind_loop_state, "bn")),
        stays(
            "control/from_inside_of_if", partial(from_inside_of_if, "bn"), None, "they differ"
        ),
    ]
