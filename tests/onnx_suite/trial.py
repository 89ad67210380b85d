"""Fold one model of the suite, and say what became of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.campaign import truth
from benchmarks.campaign.sketch import Case, NoCaseError
from tests.laws.by_runtime import Runtime
from tests.laws.promise import judged
from tests.laws.second_opinion import REFUSES
from tests.onnx_suite.models import SuiteModel

AS_IT_IS: Final = "as it is"
WRAPPED: Final = "wrapped"


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one model.

    Attributes:
        name: Of the test.
        way: As it is, or wrapped.
        end: One of the words of `ENDS`.
        faults: Which parts of the promise are broken.
        why: Who refused it.
        compared: Sets of inputs that both models were evaluated on in float64.
        runtime: What ONNX Runtime says.
    """

    name: str
    way: str
    end: str
    faults: tuple[str, ...] = ()
    why: str = ""
    compared: int = 0
    runtime: str = ""


ENDS: Final = ("folded", "left alone", "refused", "not wrapped")


def tried(test: SuiteModel, way: str, runtime: Runtime, turn: int = 0) -> Line:
    """Fold a model, as it is or wrapped, and return what became of it."""
    try:
        case = test.as_it_is() if way == AS_IT_IS else test.wrapped(turn)
    except NoCaseError as error:
        return Line(test.name, way, "not wrapped", why=str(error))
    try:
        found = judged(case, turn, feeds_of=_feeds_of(test, case, way, turn), runtime=runtime)
    except Exception:  # noqa: BLE001  whatever it is, it is no BnfoldError
        told = traceback.format_exc(limit=-3)
        return Line(test.name, way, "folded", (told,))
    end = "refused" if found.refused else "folded" if found.folded else "left alone"
    return Line(
        test.name, way, end, found.faults, found.refused, found.compared, found.runtime
    )


def _feeds_of(
    test: SuiteModel, case: Case, way: str, turn: int
) -> Callable[[int], truth.Feeds]:
    if way == WRAPPED:
        return lambda number: truth.feeds_of(case, number, turn)
    given = test.feeds()

    def varied(number: int) -> truth.Feeds:
        """The numbers of the suite, then others near to them."""
        if not number:
            return given
        rng = np.random.default_rng((turn, 43))
        return {name: _near(array, rng) for name, array in given.items()}

    return varied


def _near(array: truth.Array, rng: np.random.Generator) -> truth.Array:
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        return array
    factors = 1 + 0.1 * rng.standard_normal(array.shape)
    return np.asarray((array * factors).astype(array.dtype))


def refuses(line: Line) -> bool:
    """Return whether a second opinion is missing, as the runtime refuses the original."""
    return line.runtime == REFUSES
