"""One drawn graph: does the fold keep its promise, and would a wrong fold be noticed?"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.campaign import truth
from tests.fuzz.draws import Draws
from tests.fuzz.models import Drawn, drawn_model
from tests.laws.by_runtime import Runtime
from tests.laws.promise import BEYOND, Judged, judged

CONTROLLED: Final = 10
"""One of so many graphs is folded wrongly, on purpose."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a graph.

    Attributes:
        drawn: The graph.
        said: What is said of its fold.
        noticed: Whether a fold that is wrong was noticed; None where none was made.
    """

    drawn: Drawn
    said: Judged
    noticed: bool | None = None

    @property
    def end(self) -> str:
        """What became of it, in a word or two."""
        if self.said.refused:
            return f"refused by {self.said.refused}"
        return "folded" if self.said.folded is not None else "left alone"

    @property
    def kinds(self) -> set[str]:
        """Return the kinds of its faults: their words without names and numbers."""
        return {kind_of(one) for one in self.said.faults}


def kind_of(fault: str) -> str:
    """Return the words of a fault without what is of one model only."""
    last = fault.strip().splitlines()[-1]
    words = re.sub(r"^(inf|[\d.e+-]+) ", "", last)
    return re.sub(r"[\[{(\d'].*", "", words)[:60].strip()


def _quietly(_stage: str) -> None:
    """Tell nobody."""


def tried(
    draws: Draws,
    runtime: Runtime | None = None,
    *,
    control: bool = False,
    at: Callable[[str], None] = _quietly,
) -> Trial:
    """Draw a graph, fold it and judge the fold.

    Args:
        draws: Decides on the graph.
        runtime: A second opinion.
        control: Whether to make a wrong fold as well.
        at: Told what is done next.
    """
    at("drawing")
    drawn = drawn_model(draws)
    at("folding")
    try:
        said = judged(drawn.case, 0, feeds_of=drawn.feeds, runtime=runtime)
    except Exception:  # noqa: BLE001  whatever it is, it is no BnfoldError
        return Trial(drawn, Judged((traceback.format_exc(limit=-4),)))
    wrong = control and said.folded is not None and said.compared > 0
    return Trial(drawn, said, notices(drawn, said.folded) if wrong and said.folded else None)


def notices(drawn: Drawn, folded: onnx.ModelProto) -> bool | None:
    """Return whether weights that are a tenth off are noticed.

    None if none was written, or they move nothing: of a graph whose outputs are empty, or
    infinite, every fold is right.
    """
    original = drawn.case.model
    names = truth.written(original, folded)
    if not names:
        return None
    feeds = drawn.feeds(0)
    before, after = truth.prepared(original), truth.prepared(folded)
    wanted, right = truth.run(before, feeds), truth.run(after, feeds)
    found = truth.run(truth.prepared(spoiled(folded, names)), feeds)
    if all(_is_unmoved(found[name], right[name]) for name in right):
        return None
    bound = truth.bounds(after, names, feeds, right)
    return truth.excess(found, wanted, bound) > BEYOND


def _is_unmoved(found: np.ndarray, right: np.ndarray) -> bool:
    return np.array_equal(found, right, equal_nan=found.dtype.kind == right.dtype.kind == "f")


def spoiled(model: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """Return the model with these weights a tenth off."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in truth.stored(copy).values():
        if tensor.name in names:
            array = numpy_helper.to_array(tensor)
            moved = array.astype(np.float64) * 1.1 + 0.1
            tensor.CopyFrom(numpy_helper.from_array(moved.astype(array.dtype), tensor.name))
    return copy
