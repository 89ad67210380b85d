"""Graphs under construction, in every type and operator set, and the cases made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Shape = tuple[int, ...]

TYPES: Final[Mapping[str, int]] = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "fp64": TensorProto.DOUBLE,
}
NEWEST: Final = onnx.defs.onnx_opset_version()


class NoCaseError(Exception):
    """A model that is no case for the campaign; says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """A value of a sketch.

    Attributes:
        name: Its name.
        shape: Its shape at the first of the sizes that the model is evaluated at.
        open: Axes whose size the model does not fix, the batch apart.
    """

    name: str
    shape: Shape
    open: frozenset[int] = frozenset()

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def is_fixed(self) -> bool:
        """Whether all sizes but the batch are known."""
        return not self.open


@dataclass(frozen=True, slots=True)
class Case:
    """A model to be folded.

    Attributes:
        model: The original; every node has a name.
        source: Where it is from.
        kind: The type of its numbers, for the tables.
        sizes: By symbol; each entry is one way to fix the open sizes.
        options: What the fold is allowed beyond the default.
        feeds: How inputs are drawn: ``"mask"``, an array, or numbers ``("near", array)``.
    """

    model: onnx.ModelProto
    source: str
    kind: str
    sizes: tuple[Mapping[str, int], ...] = ({},)
    options: Mapping[str, bool] = field(default_factory=dict)
    feeds: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Sketch:
    """A model under construction."""

    rng: np.random.Generator
    kind: str = "fp32"
    opset: int = 17
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    feeds: dict[str, Any] = field(default_factory=dict)
    options: dict[str, bool] = field(default_factory=dict)
    count: int = 0

    @property
    def element(self) -> int:
        """The element type of its values."""
        return TYPES[self.kind]

    def fresh(self, stem: str) -> str:
        """Return a name that is not in use."""
        self.count += 1
        return f"{stem}{self.count}"

    def const(self, array: Any, stem: str = "c") -> str:
        """Store numbers in the type of the model."""
        kind = helper.tensor_dtype_to_np_dtype(self.element)
        return self.store(np.asarray(array, np.float64).astype(kind), stem)

    def store(self, array: Any, stem: str = "k") -> str:
        """Store an array as it is."""
        name = self.fresh(stem)
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def whole(self, *numbers: int) -> str:
        """Store a list of integers."""
        return self.store(np.array(numbers, np.int64), "i")

    def op(self, kind: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> str:
        """Append a node and return the name of its first output."""
        name = self.fresh(kind.lower())
        names = [name, *(f"{name}_{n}" for n in range(1, outputs))]
        node = helper.make_node(kind, list(inputs), names, name=f"n_{name}", **attributes)
        self.nodes.append(node)
        return name

    def chance(self, share: float) -> bool:
        """Return True so often."""
        return bool(self.rng.random() < share)

    def pick(self, *options: Any) -> Any:
        """Return one of the options."""
        return options[int(self.rng.integers(len(options)))]

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        """Draw normal numbers."""
        return np.asarray(self.rng.normal(0, scale, shape))

    def gains(self, *shape: int) -> Array:
        """Draw factors as networks have them: trained, or as they were initialised.

        Ones before training, nearly ones, a zero or a few (zero-initialised residual branches,
        pruned channels), 1e-6 (LayerScale), one number for all, decades apart; most often away
        from zero, some negative.
        """
        kind = self.rng.random()
        if kind < 0.05:
            return np.ones(shape)
        if kind < 0.09:
            return np.asarray(1.0 + self.rng.normal(0, 1e-3, shape))
        if kind < 0.12:
            return np.full(shape, self.pick(1e-6, 0.1, 1.5, -2.0))
        usual = self.trained_gains(*shape)
        if kind < 0.16:
            return np.asarray(usual * (self.rng.random(shape) > 0.3))
        if kind < 0.19:
            return np.asarray(usual * 10.0 ** self.rng.uniform(-3, 1, shape))
        return usual

    def trained_gains(self, *shape: int) -> Array:
        """Draw factors away from zero, some negative."""
        signs = np.where(self.rng.random(shape) < 0.2, -1.0, 1.0)
        return np.asarray(signs * self.rng.uniform(0.4, 2.0, shape))

    def shifts(self, *shape: int, scale: float = 0.5) -> Array:
        """Draw addends as networks have them: zeros before training, tiny ones, or any."""
        kind = self.rng.random()
        if kind < 0.08:
            return np.zeros(shape)
        if kind < 0.12:
            return self.normal(*shape, scale=1e-5)
        return self.normal(*shape, scale=scale)

    def variances(self, *shape: int) -> Array:
        """Draw running variances: ones before training, nearly none at times, or any."""
        kind = self.rng.random()
        if kind < 0.1:
            return np.ones(shape)
        usual = self.trained_variances(*shape)
        if kind < 0.14:  # of channels that a ReLU has shut
            return np.where(self.rng.random(shape) < 0.3, 1e-7, usual)
        return usual

    def trained_variances(self, *shape: int) -> Array:
        """Draw running variances within a few times of each other."""
        return np.asarray(np.exp(self.rng.normal(-0.5, 0.8, shape)))

    def given(self, name: str, dims: Sequence[Any], element: int | None = None) -> str:
        """Declare an input."""
        kind = self.element if element is None else element
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(dims)))
        return name

    def model(
        self, outputs: Sequence[Place], *, element: int | None = None
    ) -> onnx.ModelProto:
        """Return the model that gives these values."""
        kind = self.element if element is None else element
        given = [
            helper.make_tensor_value_info(one.name, kind, [None] * one.rank) for one in outputs
        ]
        used = {name for node in self.nodes for name in _read_by(node)}
        weights = [one for one in self.weights if one.name in used]
        graph = helper.make_graph(self.nodes, "drawn", self.inputs, given, weights)
        imports = [helper.make_opsetid("", self.opset)]
        if self.functions:
            imports.append(helper.make_opsetid("local", 1))
        ir_version = 8 if self.opset < 19 else 10
        return helper.make_model(
            graph, opset_imports=imports, ir_version=ir_version, functions=self.functions
        )


def _read_by(node: onnx.NodeProto) -> set[str]:
    """Return what a node reads, its subgraphs included."""
    names = set(node.input)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            names |= {o.name for o in attribute.g.output}
            for inner in attribute.g.node:
                names |= _read_by(inner)
    return names


def axes_of(
    sketch: Sketch, axes: Sequence[int], since: int
) -> tuple[list[str], dict[str, Any]]:
    """Return axes as the operator set wants them: as an input from ``since`` on."""
    if sketch.opset >= since:
        return [sketch.whole(*axes)], {}
    return [], {"axes": list(axes)}


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with a name for every node of its main graph that has none."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    taken = {node.name for node in copy.graph.node}
    seen: set[str] = set()
    for place, node in enumerate(copy.graph.node):
        if not node.name or node.name in seen:
            name = f"node_{place}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
        seen.add(node.name)
    return copy
