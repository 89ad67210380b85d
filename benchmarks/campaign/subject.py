"""A right fold to be spoiled, and what a spoiled one is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.campaign.sketch import Array
from benchmarks.campaign.truth import HALF_ULP, written


@dataclass(frozen=True, slots=True)
class Mutant:
    """A spoiled copy of a folded model.

    Attributes:
        model: The copy.
        kind: What is wrong.
        nodes: Names of the nodes of which any is the right one to name.
        tensors: Names of the tensors with other numbers.
        half_ulps: The largest change of a stored number, in half units in its last place;
            infinite where it is no number that changed.
    """

    model: onnx.ModelProto
    kind: str
    nodes: tuple[str, ...]
    tensors: tuple[str, ...] = ()
    half_ulps: float = np.inf


@dataclass(slots=True)
class Subject:
    """A right fold to be spoiled.

    Attributes:
        original: The model before.
        folded: The right fold.
        rng: Chooses places and numbers.
    """

    original: onnx.ModelProto
    folded: onnx.ModelProto
    rng: np.random.Generator
    written: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Find what the fold wrote."""
        stored = {one.name for one in self.folded.graph.initializer}
        self.written = sorted(written(self.original, self.folded) & stored)

    def copy(self) -> onnx.ModelProto:
        """Return a copy of the fold."""
        model = onnx.ModelProto()
        model.CopyFrom(self.folded)
        return model

    def readers(self, name: str) -> tuple[str, ...]:
        """Return the nodes of the fold that read a value, within subgraphs too.

        What computes a constant from it hands it on: its readers read it too.
        """
        found: dict[str, None] = {}
        wanted, constants = {name}, {one.name for one in self.folded.graph.initializer}
        for node in self.folded.graph.node:
            if wanted & _reads(node):
                found[node.name] = None
                if constants >= {one for one in node.input if one}:
                    wanted |= set(node.output)
            if constants >= {one for one in node.input if one}:
                constants |= set(node.output)
        return tuple(found)

    def any_of(self, things: Any) -> Any:
        """Return one of these, None if there is none."""
        things = list(things)
        return things[int(self.rng.integers(len(things)))] if things else None

    def tensor(self, name: str) -> onnx.TensorProto:
        """Return a stored tensor of the fold."""
        return next(one for one in self.folded.graph.initializer if one.name == name)

    def with_array(self, kind: str, name: str, array: Array) -> Mutant | None:
        """Return the fold with other numbers in one tensor; None where nothing changes."""
        old = self.tensor(name)
        kept = numpy_helper.to_array(old)
        with np.errstate(all="ignore"):
            fresh = numpy_helper.from_array(
                np.ascontiguousarray(array.astype(kept.dtype)), name
            )
        if (
            fresh.SerializeToString()
            == numpy_helper.from_array(kept, name).SerializeToString()
        ):
            return None
        model = self.copy()
        place = [one.name for one in model.graph.initializer].index(name)
        model.graph.initializer[place].CopyFrom(fresh)
        size = in_half_ulps(kept, numpy_helper.to_array(fresh), old.data_type)
        return Mutant(model, kind, self.readers(name), (name,), size)


def _reads(node: onnx.NodeProto) -> set[str]:
    names = set(node.input)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                names |= _reads(inner)
            names |= {one.name for one in attribute.g.output}
    return names


def in_half_ulps(old: Array, new: Array, kind: int) -> float:
    """Return the largest change of a number in half units in its last place."""
    if kind not in HALF_ULP or old.shape != new.shape:
        return np.inf
    before, after = old.astype(np.float64), new.astype(np.float64)
    with np.errstate(all="ignore"):
        step = 2.0 ** np.floor(np.log2(np.maximum(np.abs(before), 1e-38))) * HALF_ULP[kind]
        gaps = np.abs(after - before) / step
    return float(np.max(np.nan_to_num(gaps, nan=np.inf), initial=0.0))
