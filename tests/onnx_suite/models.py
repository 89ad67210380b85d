"""The models of the suite: those that it makes, and those that it stores in files."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import SequenceProto, TensorProto, TypeProto, numpy_helper

from benchmarks.campaign import suite
from benchmarks.campaign.sketch import Case, named
from benchmarks.campaign.truth import HALF_ULP, Feeds

STORED: Final = ("pytorch-converted", "pytorch-operator", "simple")
_DATA: Final = Path(onnx.__file__).parent / "backend/test/data"
_KINDS: Final = {1: "fp32", 10: "fp16", 11: "fp64", 16: "bf16"}


@dataclass(frozen=True, slots=True)
class SuiteModel:
    """One test of the suite: a model, and arrays that go in and come out."""

    name: str
    model: onnx.ModelProto
    data_sets: Sequence[tuple[Sequence[Any], Sequence[Any]]]

    def feeds(self) -> Feeds:
        """Return the inputs of the first set, by name; absent ones are left out."""
        given = self.data_sets[0][0] if self.data_sets else ()
        stored = {one.name for one in self.model.graph.initializer}
        names = [one.name for one in self.model.graph.input if one.name not in stored]
        pairs = zip(names, given, strict=False)
        return {name: value for name, value in pairs if value is not None}

    def as_it_is(self) -> Case:
        """Return the case without anything around it."""
        infos = (*self.model.graph.output, *self.model.graph.input)
        elements = [one.type.tensor_type.elem_type for one in infos]
        kind = next((_KINDS[one] for one in elements if one in HALF_ULP), "fp32")
        return Case(named(self.model), "suite", kind)

    def wrapped(self, turn: int) -> Case:
        """Return the case with maps and layers around it, others at every turn.

        Raises:
            NoCaseError: If nothing can be put around it.
        """
        rng = np.random.default_rng((zlib.crc32(self.name.encode()), turn, 31))
        return suite.wrapped(self, rng)


def _decoded(value: Any) -> Any:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


@cache
def all_tests() -> tuple[SuiteModel, ...]:
    """Return all tests, in the order of their names."""
    made = [SuiteModel(one.name, one.model, _read_sets(one)) for one in suite.models()]
    stored = [_stored(path) for folder in STORED for path in (_DATA / folder).iterdir()]
    return tuple(sorted((*made, *stored), key=lambda test: test.name))


def _read_sets(test: Any) -> list[tuple[list[Any], list[Any]]]:
    return [
        (list(map(_decoded, inputs)), list(map(_decoded, outputs)))
        for inputs, outputs in test.data_sets
    ]


def _stored(folder: Path) -> SuiteModel:
    model = onnx.load(folder / "model.onnx")
    sets = []
    for data in sorted(folder.glob("test_data_set_*")):
        inputs = [
            _read(data / f"input_{place}.pb", info.type)
            for place, info in enumerate(model.graph.input)
            if (data / f"input_{place}.pb").exists()
        ]
        outputs = [
            _read(data / f"output_{place}.pb", info.type)
            for place, info in enumerate(model.graph.output)
        ]
        sets.append((inputs, outputs))
    return SuiteModel(folder.name, model, sets)


def _read(path: Path, kind: TypeProto) -> Any:
    data = path.read_bytes()
    if kind.HasField("sequence_type"):
        return numpy_helper.to_list(SequenceProto.FromString(data))
    return numpy_helper.to_array(TensorProto.FromString(data))
