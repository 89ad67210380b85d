"""RNN, GRU and LSTM in float64, against torch and ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from onnx import numpy_helper

from bnfold.evidence.reference import NoKernelError
from tests.battery.graphs import Net
from tests.evidence.reference.nodes import close, evaluate_all
from tests.recurrent import Cell, cells
from tests.reference64 import run64

TORCH_ORDER = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}
"""Which gate of torch's stands at each place of ONNX's."""


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("both", [False, True])
def test_as_torch_computes_it(op, both, rng):
    torch = pytest.importorskip("torch")
    layer = getattr(torch.nn, op)(4, 3, bidirectional=both).double()
    x, ends = torch.tensor(rng.normal(size=(5, 2, 4))), ["", "_reverse"][: 1 + both]

    def stored(name: str) -> np.ndarray:
        parts = [getattr(layer, f"{name}_l0{end}").detach().numpy() for end in ends]
        gates = [np.split(part, len(TORCH_ORDER[op])) for part in parts]
        return np.stack([np.concatenate([g[k] for k in TORCH_ORDER[op]]) for g in gates])

    bias = np.concatenate([stored("bias_ih"), stored("bias_hh")], axis=1)
    attributes = {"hidden_size": 3, "direction": "bidirectional" if both else "forward"}
    if op == "GRU":
        attributes["linear_before_reset"] = 1
    arrays = [x.numpy(), stored("weight_ih"), stored("weight_hh"), bias]
    outputs = 3 if op == "LSTM" else 2
    y, *ours = evaluate_all(op, arrays, outputs=outputs, **attributes)
    with torch.no_grad():
        wanted, last = layer(x)
    close(y.transpose(0, 2, 1, 3).reshape(5, 2, -1), wanted)
    for one, other in zip(ours, last if op == "LSTM" else (last,), strict=True):
        close(one, other)


def _model(cell: Cell):
    net = Net("kernel", cell.opset)
    for result in cell.write(net, net.input(cell.shape)):
        net.output(result)
    return net.model()


@given(cells())
@settings(max_examples=40)
@example(Cell("LSTM", 14, lengths=True, attributes={"layout": 1}))
def test_as_the_runtime_computes_it(cell):
    """Which knows one layout: the other is this one with axes exchanged."""
    runtime = pytest.importorskip("tests.battery.runtime")
    time_first = {k: v for k, v in cell.attributes.items() if k != "layout"}
    plain = replace(cell, attributes=time_first)
    x = np.random.default_rng(1).normal(size=plain.shape).astype(np.float32)
    wanted, complaint = runtime.outputs(_model(plain), {"x": x}, optimised=False)
    assert complaint == ""
    if not cell.batch_first:
        ours = run64(_model(cell), {"x": x})
    else:
        ours = _batch_first(cell, plain, x)
    for name, value in wanted.items():
        np.testing.assert_allclose(ours[name], value, rtol=2e-4, atol=2e-5)


def _batch_first(cell: Cell, plain: Cell, x: np.ndarray) -> dict[str, np.ndarray]:
    """Give the node of the other layout what that of this one reads."""
    proto = _model(plain)
    stored = {t.name: t for t in proto.graph.initializer}
    arrays = [x.swapaxes(0, 1)]
    for place, name in enumerate(list(proto.graph.node[0].input)[1:], start=1):
        array = numpy_helper.to_array(stored[name]) if name else None
        arrays.append(array.swapaxes(0, 1) if name and place in (5, 6) else array)
    outputs = 3 if cell.op == "LSTM" else 2
    attributes = {"hidden_size": cell.hidden, **cell.attributes}
    y, *ends = evaluate_all(cell.op, arrays, cell.opset, outputs, **attributes)
    found = [y.transpose(1, 2, 0, 3), *(end.swapaxes(0, 1) for end in ends)]
    return dict(zip(["Y", "Y_h", "Y_c"], found, strict=False))


def test_a_sequence_without_steps_ends_in_zeros(rng):
    """As the runtime has it."""
    arrays = [*map(rng.normal, (0, 0, 0), (1, 1, 1), ((3, 2, 2), (1, 4, 2), (1, 4, 4)))]
    lengths, state = np.array([3, 0], np.int32), rng.normal(size=(1, 2, 4))
    y, last = evaluate_all("RNN", [*arrays, None, lengths, state], outputs=2, hidden_size=4)
    assert not last[0, 1].any()
    assert not y[:, 0, 1].any()
    close(last[0, 0], y[2, 0, 0])


@pytest.mark.parametrize(
    "attributes", [{"activations": ["Gelu"]}, {"direction": "bidirectional"}]
)
def test_what_fits_no_formula_has_no_kernel(attributes, rng):
    arrays = [*map(rng.normal, (0, 0, 0), (1, 1, 1), ((3, 2, 2), (1, 4, 2), (1, 4, 4)))]
    with pytest.raises(NoKernelError):
        evaluate_all("RNN", arrays, outputs=2, hidden_size=4, **attributes)
