"""What a graph under construction can read, and what it has written so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import onnx
from onnx import TensorProto, TypeProto, helper, numpy_helper

from benchmarks.campaign.sketch import Array, Shape
from tests.fuzz.draws import Draws


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor that nodes can read, with one example of its numbers.

    Attributes:
        name: Its name.
        element: Its element type.
        array: Numbers that it has for the inputs that were drawn, floats widened.
        constant: Whether it depends on no input.
        given: Whether it is an input of the model.
    """

    name: str
    element: int
    array: Array
    constant: bool = False
    given: bool = False

    @property
    def shape(self) -> Shape:
        """Its shape, for the inputs that were drawn."""
        return self.array.shape

    def info(self, name: str = "") -> onnx.ValueInfoProto:
        """Declare it, with its shape."""
        return helper.make_tensor_value_info(name or self.name, self.element, self.shape)


@dataclass
class Scope:
    """One graph, or the body of a function.

    Attributes:
        draws: Where decisions come from.
        kind: The float type that most of its values have.
        opset: Version of the operator set.
        stem: Names of values begin with it; two bodies may share theirs.
        values: What can be read here, that of the graphs around it first.
        nodes: In order.
        weights: Initializers of this graph.
        is_function: A function has no initializers and sees no graph around it.
        loose: Values that are no tensors of a known shape: only read where any will do.
    """

    draws: Draws
    kind: int
    opset: int
    stem: str = "v"
    depth: int = 0
    values: list[Value] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    is_function: bool = False
    loose: list[tuple[str, TypeProto]] = field(default_factory=list)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    new_input: Callable[[int, Shape], Value] | None = None
    _numbers: count[int] = field(default_factory=count)

    def fresh(self) -> str:
        """Return a name that is not in use here."""
        return f"{self.stem}{next(self._numbers)}"

    def fork(self, *, sees: bool) -> Scope:
        """Return the scope of a body; it may use the names of the body before it again."""
        inner = Scope(
            self.draws,
            self.kind,
            self.opset,
            f"b{self.depth}_" if self.draws.chance(60) else f"{self.fresh()}_",
            self.depth + 1,
            list(self.values) if sees else [],
            is_function=self.is_function or not sees,
        )
        inner.functions = self.functions
        return inner

    def constant(self, array: Array, element: int) -> Value:
        """Store numbers: as an initializer, or as a node."""
        wide = array.astype("f8") if _is_float(array, element) else array
        name = self.fresh()
        tensor = (
            helper.make_tensor(
                name, element, array.shape, [str(s).encode() for s in array.flat]
            )
            if element == TensorProto.STRING
            else numpy_helper.from_array(array, name)
        )
        if self.is_function or self.draws.chance(15):
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.weights.append(tensor)
        found = Value(name, element, wide, constant=True)
        self.values.append(found)
        return found


def _is_float(array: Array, element: int) -> bool:
    return "FLOAT" in TensorProto.DataType.Name(element) or array.dtype.kind == "f"
