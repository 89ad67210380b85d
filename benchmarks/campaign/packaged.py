"""Models at hand: those of the repository, and the light ones of the onnx wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx

from benchmarks.campaign.sketch import Case, named

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
