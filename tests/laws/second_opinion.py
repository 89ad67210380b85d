"""Both models on ONNX Runtime, in the graph's own types: written by others, and coarse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.campaign import truth
from benchmarks.campaign.sketch import Case
from tests.battery.judge import tensors
from tests.laws.by_runtime import Runtime

AGREES: Final = "agrees"
REFUSES: Final = "refuses the original"
NOISY: Final = "differs by no more than rounding does"
OTHER: Final = "gives other numbers"
NO_LONGER: Final = "refuses the fold"
LIMITS: Final[Mapping[str, float]] = {"fp32": 1e-4, "fp64": 1e-10, "fp16": 2e-2, "bf16": 0.1}
"""Of the largest number of an output: beyond it the noise of rounding is measured."""
LEAST: Final[Mapping[str, float]] = {"fp32": 1e-37, "fp16": 1e-6, "bf16": 1e-37}
"""Subnormal numbers have few bits, or count as zero."""
HUGE: Final = 1e30
"""Beyond it lie infinities, the lowest number as a mask, and what both overflow to."""
ROOM: Final = 30.0
"""Times the largest change of three that rounding makes: the worst pattern is not drawn."""


def second_opinion(
    runtime: Runtime, case: Case, folded: onnx.ModelProto, feeds: truth.Feeds
) -> tuple[str, str]:
    """Return what the runtime says of a fold, and what is wrong with it, if anything."""
    before = runtime.run(case.model.SerializeToString(), feeds)
    if before.outputs is None:
        return REFUSES, ""
    after = runtime.run(folded.SerializeToString(), feeds)
    if after.outputs is None:
        return NO_LONGER, f"the runtime ran the original; of the fold it says {after.why}"
    kind = case.kind.split()[-1]
    limit, least = LIMITS.get(kind, 0.1), LEAST.get(kind, 0.0)
    apart = gaps(before.outputs, after.outputs)
    peaks = {name: _peak(value) for name, value in before.outputs.items()}
    if all(gap <= max(limit * peaks[name], least) for name, gap in apart.items()):
        return AGREES, ""
    noise = _noise(runtime, case.model, feeds, before.outputs)
    far = {name: gap for name, gap in apart.items() if gap > ROOM * noise[name]}
    if not far:
        return NOISY, ""
    return OTHER, f"the runtime gives other numbers: {far}, rounding makes {noise}"


def gaps(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float]:
    """Return the largest difference of every output; NaN equals NaN, inf itself."""
    return {name: _gap(value, other[name]) for name, value in one.items()}


def _gap(one: Any, other: Any) -> float:
    if isinstance(one, list):
        if len(one) != len(other):
            return np.inf
        return max((_gap(*pair) for pair in zip(one, other, strict=True)), default=0.0)
    if one is None or other is None:
        return 0.0 if one is other else np.inf
    first, second = _wide(one), _wide(other)
    if first.dtype.kind == "f" and first.shape == second.shape:
        vague = np.isnan(first) & ~np.isnan(np.asarray(one, np.float64))
        vague |= np.isnan(second) & ~np.isnan(np.asarray(other, np.float64))
        first, second = np.where(vague, 0.0, first), np.where(vague, 0.0, second)
    return truth.largest(first, second)


def _wide(value: Any) -> truth.Array:
    """Return numbers in float64, and NaN for what is as large as masks are."""
    array = np.asarray(value)
    if array.dtype.kind not in "fV":
        return array
    wide = array.astype(np.float64)
    return np.where(np.abs(wide) > HUGE, np.nan, wide)


def _peak(value: Any) -> float:
    arrays = [_wide(one) for one in _entries(value)]
    floats = [np.abs(a[np.isfinite(a)]) for a in arrays if a.dtype.kind == "f"]
    return max((float(np.max(a, initial=0.0)) for a in floats), default=0.0)


def _entries(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _noise(
    runtime: Runtime, model: onnx.ModelProto, feeds: truth.Feeds, base: Mapping[str, Any]
) -> dict[str, float]:
    """Return how far the last bit of everything that is read moves each output."""
    found = dict.fromkeys(base, 0.0)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        inputs = {name: _nudged(one, rng) for name, one in feeds.items()}
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        for tensor in tensors(copy):
            if tensor.data_type in truth.HALF_ULP:
                array = _nudged(numpy_helper.to_array(tensor), rng)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        answer = runtime.run(copy.SerializeToString(), inputs)
        if answer.outputs is None:
            continue
        for name, gap in gaps(base, answer.outputs).items():
            found[name] = max(found[name], gap)
    return found


def _nudged(array: Any, rng: np.random.Generator) -> Any:
    """Move floats to a neighbour; whole numbers are meant as they are."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fV" or not array.ndim:
        return array
    wide = array.astype(np.float64)
    step = float(ml_dtypes.finfo(array.dtype).eps) * rng.choice([-1.0, 1.0], array.shape)
    still = wide == np.round(wide)
    return np.where(still, wide, wide * (1 + step)).astype(array.dtype)
