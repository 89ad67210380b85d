"""Models at hand: packaged ones, those of the onnx wheel, and those that tests build."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx

from benchmarks.campaign.sketch import TYPES, Case, NoCaseError, named
from tests.battery.cases import ALL
from tests.battery.judge import FREE_SIZES
from tests.mutants.originals import PRECISIONS, original_of

_LIGHT: Final = Path(onnx.__file__).parent / "backend/test/data/light"
_OWN: Final = Path(__file__).parents[2] / "models"


def files() -> list[Path]:
    """Return the models, small ones first."""
    own = sorted(_OWN.glob("*.onnx"))
    light = sorted(_LIGHT.glob("*.onnx"), key=lambda path: path.stat().st_size)
    return [*own, *light]


def case_of(number: int) -> tuple[str, Case]:
    """Return the name of a file, and the case that belongs to it."""
    path = files()[number]
    model = named(onnx.load(path))
    symbols = {
        d.dim_param
        for one in model.graph.input
        for d in one.type.tensor_type.shape.dim
        if d.dim_param
    }
    sizes = (dict.fromkeys(symbols, 2),)
    return path.name, Case(model, "packaged", "fp32", sizes)


def network_of(number: int) -> Case:
    """Return one of the small networks that the tests of the judge draw."""
    precision = list(PRECISIONS)[number % len(PRECISIONS)]
    model = named(original_of(number // len(PRECISIONS), precision))
    return Case(model, "networks", precision, ({"N": 2}, {"N": 3}))


def battery() -> int:
    """Return how many graphs the battery of the fold has."""
    return len(ALL)


def battery_case(number: int) -> tuple[str, Case]:
    """Return the name of a graph of the battery, and the case that belongs to it.

    Raises:
        NoCaseError: If it has operators or inputs that only the battery knows.
    """
    case = ALL[number]
    model = named(case.build())
    if any(one.domain not in ("", "ai.onnx") for one in model.opset_import):
        raise NoCaseError("operators of another domain")
    if any(one.name == "shape" for one in model.graph.input):
        raise NoCaseError("its shape is an input")
    sizes = tuple({name: pair[turn] for name, pair in FREE_SIZES.items()} for turn in range(2))
    return case.name, Case(model, "battery", kind_of(model), sizes)


def kind_of(model: onnx.ModelProto) -> str:
    """Return the type of the first floating input or weight."""
    kinds = {number: word for word, number in TYPES.items()}
    infos = [one.type.tensor_type.elem_type for one in model.graph.input]
    stored = [one.data_type for one in model.graph.initializer]
    return next((kinds[one] for one in (*infos, *stored) if one in kinds), "fp32")
