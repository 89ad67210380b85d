"""Drawn LSTM, GRU and RNN nodes, with everything that their schemas leave open."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.battery.graphs import Net

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_PER_DIRECTION = {"LSTM": 3, "GRU": 2, "RNN": 1}
_ACTIVATIONS = ("Relu", "Tanh", "Sigmoid", "HardSigmoid", "Softsign", "Affine", "Elu")
_OPSETS = (7, 11, 13, 14, 17, 22)
_LAYOUT_SINCE = 14


@dataclass(frozen=True)
class Cell:
    """One node: what it is, how large, and which of its inputs are there."""

    op: str
    opset: int = 17
    directions: int = 1
    inputs: int = 3
    hidden: int = 2
    steps: int = 4
    batch: int = 2
    bias: bool = True
    lengths: bool = False
    states: bool = False
    peepholes: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def batch_first(self) -> bool:
        return bool(self.attributes.get("layout", 0))

    @property
    def shape(self) -> list[int]:
        """Of X."""
        first = (self.batch, self.steps) if self.batch_first else (self.steps, self.batch)
        return [*first, self.inputs]

    def arrays(self, rng: np.random.Generator) -> list[np.ndarray | None]:
        """What the node reads behind X; None where it is absent."""
        directions, hidden = self.directions, self.hidden
        wide = GATES[self.op] * hidden
        state = (directions, self.batch, hidden)
        state = (self.batch, directions, hidden) if self.batch_first else state
        lengths = np.array([self.steps, self.steps - 1][: self.batch], np.int32)
        found = [
            rng.normal(size=(directions, wide, self.inputs)),
            rng.normal(size=(directions, wide, hidden)),
            rng.normal(size=(directions, 2 * wide)) if self.bias else None,
            lengths if self.lengths else None,
            rng.normal(size=state) if self.states else None,
        ]
        if self.op == "LSTM":
            found.append(rng.normal(size=state) if self.states else None)
            found.append(rng.normal(size=(directions, 3 * hidden)) if self.peepholes else None)
        return found

    def write(self, net: Net, x: str) -> list[str]:
        names = [x]
        for array in self.arrays(net.rng):
            kind = None if array is None or array.dtype.kind == "f" else "int32"
            names.append("" if array is None else net.const(array, dtype=kind))
        while not names[-1]:
            names.pop()
        results = ["Y", "Y_h", "Y_c"][: 3 if self.op == "LSTM" else 2]
        attributes = {"hidden_size": self.hidden, **self.attributes}
        return net.nodes_out(self.op, names, results, attributes=attributes)


@st.composite
def cells(draw, opsets=_OPSETS) -> Cell:
    """Any form of any of the three operators."""
    op, opset = draw(st.sampled_from(sorted(GATES))), draw(st.sampled_from(opsets))
    both = draw(st.booleans())
    attributes: dict[str, Any] = {"direction": "bidirectional"} if both else {}
    if not both and draw(st.booleans()):
        attributes["direction"] = "reverse"
    if opset >= _LAYOUT_SINCE and draw(st.booleans()):
        attributes["layout"] = 1
    if draw(st.booleans()):
        attributes["clip"] = draw(st.sampled_from([0.4, 1.5]))
    if op == "GRU" and draw(st.booleans()):
        attributes["linear_before_reset"] = 1
    if op == "LSTM" and draw(st.booleans()):
        attributes["input_forget"] = 1
    if draw(st.booleans()):
        count = _PER_DIRECTION[op] * (1 + both)
        names = st.lists(st.sampled_from(_ACTIVATIONS), min_size=count, max_size=count)
        attributes["activations"] = draw(names)
        attributes["activation_alpha"] = [0.3] * count
        attributes["activation_beta"] = [0.4] * count
    flags = {name: draw(st.booleans()) for name in ("bias", "lengths", "states", "peepholes")}
    sizes = {name: draw(st.integers(1, 4)) for name in ("inputs", "hidden", "batch")}
    sizes["batch"] = min(sizes["batch"], 2)
    steps = draw(st.integers(2, 5))
    return Cell(op, opset, 1 + both, steps=steps, **sizes, **flags, attributes=attributes)
