"""All mutants of a fold: every kind of fault, wherever it applies and makes a difference."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, zip_longest

import numpy as np
import onnx

from tests.mutants.parameters import parameter_faults
from tests.mutants.subject import Array, Mutant, Subject
from tests.mutants.tensors import tensor_faults
from tests.mutants.wiring import wiring_faults
from tests.reference64 import run64

_BATCH = 3
_LEAST_DIFFERENCE = 1e-12
"""Relative to the largest number of an output: float64 arithmetic of small nets is better."""


def mutants_of(
    original: onnx.ModelProto, folded: onnx.ModelProto, rng: np.random.Generator
) -> Iterator[Mutant]:
    """Yield every mutant of a fold that is a valid model and another function."""
    yield from Nursery(Subject(original, folded), rng).mutants()


@dataclass(slots=True)
class Nursery:
    """Makes mutants of one fold, and sorts out those that are none.

    Attributes:
        subject: The fold.
        rng: Chooses channels, elements and factors.
        dropped: Why candidates were sorted out, and how many by kind.
    """

    subject: Subject
    rng: np.random.Generator
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)

    def sample(self, count: int) -> Iterator[Mutant]:
        """Yield some of the mutants, of as many kinds as there are."""
        candidates = list(self._candidates())
        by_kind: dict[str, list[Mutant]] = {}
        for place in self.rng.permutation(len(candidates)):
            by_kind.setdefault(candidates[place].kind, []).append(candidates[place])
        rows = zip_longest(*by_kind.values())
        mixed = [mutant for row in rows for mutant in row if mutant is not None]
        yield from islice(self._valid(mixed), count)

    def mutants(self) -> Iterator[Mutant]:
        """Yield every mutant that is valid and shown to be another function."""
        yield from self._valid(self._candidates())

    def _valid(self, candidates: Iterable[Mutant]) -> Iterator[Mutant]:
        feeds = [_feeds(self.subject.folded, self.rng, size) for size in (1.0, 5.0)]
        honest = [run64(self.subject.folded, feed) for feed in feeds]
        for mutant in candidates:
            why = self._why_not(mutant, feeds, honest)
            if why:
                self.dropped[mutant.kind, why] += 1
            else:
                yield mutant

    def _candidates(self) -> Iterator[Mutant]:
        yield from parameter_faults(self.subject, self.rng)
        yield from tensor_faults(self.subject, self.rng)
        yield from wiring_faults(self.subject, self.rng)

    def _why_not(
        self,
        mutant: Mutant,
        feeds: list[dict[str, Array]],
        honest: list[Mapping[str, Array]],
    ) -> str:
        """Return why a candidate is no mutant: equal bytes, equal numbers, or no model."""
        folded = self.subject.folded
        if _bytes(mutant.model) == _bytes(folded):
            return "the same bytes"
        try:
            onnx.checker.check_model(mutant.model)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results = [run64(mutant.model, feed) for feed in feeds]
        except Exception:  # noqa: BLE001 — whatever it is, it is no model that can be run
            return "no model that can be run"
        pairs = list(zip(results, honest, strict=True))
        if not any(_is_off(a[name], b[name]) for a, b in pairs for name in b):
            return "the same outputs in float64"
        return ""


def _bytes(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


def _is_off(found: Array, wanted: Array) -> bool:
    if found.shape != wanted.shape:
        return True
    largest = float(np.abs(wanted).max(initial=0.0))
    return not np.allclose(found, wanted, rtol=0, atol=_LEAST_DIFFERENCE * largest)


def _feeds(model: onnx.ModelProto, rng: np.random.Generator, size: float) -> dict[str, Array]:
    feeds = {}
    for value in model.graph.input:
        dims = [dim.dim_value or _BATCH for dim in value.type.tensor_type.shape.dim]
        feeds[value.name] = size * rng.standard_normal(dims)
    return feeds
