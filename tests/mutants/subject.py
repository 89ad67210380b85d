"""A fold to be spoiled: the original, the honest fold, and the tensors it should have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from bnfold.folding.api import fold_unchecked

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A spoiled copy of a folded model, and where its fault lies.

    Attributes:
        model: The copy.
        kind: What went wrong.
        nodes: Names of the nodes whose constant, attribute or input is wrong: naming any of
            them is naming the right one.
        tensors: Names of the constants that are wrong; none where an attribute or input is.
        channel: The only output channel that is wrong; None if there are more, or none.
    """

    model: onnx.ModelProto
    kind: str
    nodes: tuple[str, ...]
    tensors: tuple[str, ...] = ()
    channel: int | None = None

    @property
    def node(self) -> str:
        """Name of the first node that is wrong."""
        return self.nodes[0]


@dataclass(slots=True)
class Subject:
    """A model before and after the fold.

    Attributes:
        original: Before.
        folded: After, honestly.
        before: Floating constants of the original, by name.
        after: The same of the folded model.
        truth: What ``after`` is before it is rounded: the same fold of the same numbers, all
            in float64. Empty where that fold has another structure.
    """

    original: onnx.ModelProto
    folded: onnx.ModelProto
    before: Mapping[str, Array] = field(init=False)
    after: Mapping[str, Array] = field(init=False)
    truth: Mapping[str, Array] = field(init=False)

    def __post_init__(self):
        self.before = dict(floats_of(self.original))
        self.after = dict(floats_of(self.folded))
        self.truth = self._truth()

    def _truth(self) -> dict[str, Array]:
        wide = fold_of(in_double(self.original))
        if skeleton(wide) != skeleton(self.folded):
            return {}
        return dict(floats_of(wide))

    def written(self) -> list[str]:
        """Return the floating constants that the fold wrote."""
        return [name for name, one in self.after.items() if not self._untouched(name, one)]

    def untouched(self) -> list[str]:
        """Return the floating constants that the fold left as they were."""
        return [name for name, one in self.after.items() if self._untouched(name, one)]

    def _untouched(self, name: str, array: Array) -> bool:
        return name in self.before and same_bytes(self.before[name], array)

    def predecessor(self, tensor: str) -> Array | None:
        """Return what the reader of a tensor read in its place before the fold, if constant.

        A node of the folded model that has the name of one of the original is its heir.
        """
        reader, slot = readers(self.folded, tensor)[0]
        old = next((n for n in self.original.graph.node if n.name == reader.name), None)
        if old is None or old.op_type != reader.op_type or slot >= len(old.input):
            return None
        return self.before.get(old.input[slot])

    def with_tensors(
        self, kind: str, tensors: Mapping[str, Array], channel: int | None = None
    ) -> Mutant:
        """Return the mutant that holds these numbers, rounded to the type of storage."""
        model = onnx.ModelProto()
        model.CopyFrom(self.folded)
        for place, stored in enumerate(model.graph.initializer):
            if stored.name in tensors:
                kept = self.after[stored.name]
                array = np.asarray(tensors[stored.name]).astype(kept.dtype)
                fresh = numpy_helper.from_array(array.reshape(kept.shape), stored.name)
                model.graph.initializer[place].CopyFrom(fresh)
        nodes = tuple(node.name for name in tensors for node, _ in readers(self.folded, name))
        return Mutant(model, kind, tuple(dict.fromkeys(nodes)), tuple(tensors), channel)


def subject_of(original: onnx.ModelProto) -> Subject:
    """Fold a model, and make it ready to be spoiled."""
    return Subject(original, fold_of(original))


def fold_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the honest fold."""
    return fold_unchecked(model).to_proto()


def floats_of(model: onnx.ModelProto) -> Iterator[tuple[str, Array]]:
    """Yield every floating initializer with its name."""
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
            yield tensor.name, array


def readers(model: onnx.ModelProto, name: str) -> list[tuple[onnx.NodeProto, int]]:
    """Return the nodes that read a value, and at which input."""
    return [
        (node, slot)
        for node in model.graph.node
        for slot, read in enumerate(node.input)
        if read == name
    ]


def same_bytes(one: Array, two: Array) -> bool:
    """Return whether two arrays are the same, bit by bit."""
    return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()


def skeleton(model: onnx.ModelProto) -> Sequence[object]:
    """Return all of a model but its floating numbers: nodes, and shapes of constants."""
    nodes = [node.SerializeToString(deterministic=True) for node in model.graph.node]
    return [nodes, sorted((t.name, tuple(t.dims)) for t in model.graph.initializer)]


def in_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the same numbers, but all of them float64."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    graph = wide.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _FLOATS:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    floats = dict(floats_of(model))
    for place, stored in enumerate(graph.initializer):
        if stored.name in floats:
            array = floats[stored.name].astype(np.float64)
            graph.initializer[place].CopyFrom(numpy_helper.from_array(array, stored.name))
    return wide


_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
