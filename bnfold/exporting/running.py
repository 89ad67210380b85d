"""Run a module: as it is, in float64, and with every number of it nudged by half an ulp."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bnfold.evidence.noise import Draw, nudge, roundoff
from bnfold.exporting.examples import Example, tensors_in
from bnfold.exporting.modules import call, copied
from bnfold.exporting.tensors import to_array, to_tensor, wide

Outputs = tuple[NDArray[Any], ...]


@dataclass(frozen=True, slots=True)
class Runs:
    """What one module gave for every set of inputs; ``stopped`` says why there is none."""

    outputs: tuple[Outputs, ...] = ()
    stopped: str = ""


def run(model: nn.Module, example: Example, tensors: Sequence[Tensor]) -> Outputs:
    """Return the tensors of a module's result as arrays."""
    own = [tensor.clone() for tensor in tensors]
    return tuple(to_array(one) for one in tensors_in(call(model, *example.filled(own))))


def run_wide(model: nn.Module, example: Example, sets: Sequence[Sequence[Tensor]]) -> Runs:
    """Run a module in float64.

    It counts only if every output of floats comes out in float64: a module that converts
    to a narrower type by itself computes there.
    """
    try:
        twin = copied(model, wide).eval()
        with _default_type(torch.float64):
            found = [run(twin, example, [wide(one) for one in tensors]) for tensors in sets]
    except Exception as error:  # noqa: BLE001  whatever a module throws: it has no float64
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return Runs(stopped=f"the module does not run in float64: {said}")
    narrow = [array.dtype for one in found for array in one if _is_narrow(array)]
    if narrow:
        return Runs(stopped=f"run in float64, the module still returns {narrow[0]}")
    return Runs(tuple(found))


def _is_narrow(array: NDArray[Any]) -> bool:
    is_float = array.dtype.kind in "fcV" or array.dtype.name.startswith(("bfloat", "float"))
    return is_float and array.dtype.name not in ("float64", "complex128")


@contextmanager
def _default_type(dtype: torch.dtype) -> Iterator[None]:
    """What a module makes anew, without a type, should be of this one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def run_nudged(
    model: nn.Module, example: Example, sets: Sequence[Sequence[Tensor]], draw: Draw
) -> Runs:
    """Run a module with half an ulp added to, or taken from, every float of it and its inputs.

    That is the freedom which every exporter, runtime and fold has.
    """
    count = iter(range(1 << 30))
    try:
        twin = copied(model, lambda tensor: _nudged(tensor, f"weight {next(count)}", draw))
        twin.eval()
        return Runs(
            tuple(
                run(twin, example, [_nudged(t, f"input {i}", draw) for i, t in enumerate(one)])
                for one in sets
            )
        )
    except Exception as error:  # noqa: BLE001  a nudge may leave the domain of a function
        return Runs(stopped=f"{type(error).__name__}: {error}")


def _nudged(tensor: Tensor, name: str, draw: Draw) -> Tensor:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return tensor.detach()
    array = to_array(tensor)
    key = (draw.seed, zlib.crc32(f"{draw.pattern}/{name}".encode()))
    return to_tensor(nudge(array, key, draw.pattern, roundoff(array.dtype)), tensor)


def coarsest(model: nn.Module, tensors: Sequence[Tensor]) -> float:
    """Return the largest unit roundoff among the floats that a module stores or reads."""
    stored = [*model.parameters(), *model.buffers(), *tensors]
    kinds = {one.dtype for one in stored if one.is_floating_point()}
    return max((float(torch.finfo(kind).eps) / 2 for kind in kinds), default=0.0)
