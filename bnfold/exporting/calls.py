"""On which inputs an export is verified: the user's own, some like it, other sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from bnfold.errors import ModelError
from bnfold.exporting.axes import Axes
from bnfold.exporting.examples import Example
from bnfold.exporting.modules import call

_DRAWN: Final = 2


def first_call(model: nn.Module, example: Example) -> object:
    """Return what a module gives for the user's example.

    Raises:
        ModelError: If it does not run.
    """
    try:
        return call(model, *example.filled([one.clone() for one in example.tensors]))
    except Exception as error:
        raise ModelError(
            "the module does not run on the example arguments",
            where=", ".join(
                f"{name} {tuple(one.shape)}"
                for name, one in zip(example.names, example.tensors, strict=True)
            ),
            why=f"{type(error).__name__}: {error}".splitlines()[0],
            remedy=_to_one_device(model, example) or "give arguments that the module takes",
        ) from error


def _to_one_device(model: nn.Module, example: Example) -> str:
    """Say where module and arguments are, if that is not one device."""
    where = {str(one.device) for one in (*model.parameters(), *model.buffers())}
    given = {str(one.device) for one in example.tensors}
    if len(where | given) < 2:
        return ""
    return (
        f"the module is on {' and '.join(sorted(where)) or 'no device'}, the arguments are on"
        f" {' and '.join(sorted(given))}: move them to one device"
    )


def calls_to_try(
    model: nn.Module, example: Example, axes: Axes, seed: int
) -> tuple[list[tuple[Tensor, ...]], tuple[str, ...]]:
    """Return sets of inputs, and warnings about sizes that could not be tried.

    Args:
        model: The module; it runs on the example.
        example: The user's own call: the first set.
        axes: What stays open: sizes in which other sets differ.
        seed: Of the numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = [tuple(one.shape) for one in example.tensors]
    sets = [example.tensors, tuple(_negated(one) for one in example.tensors)]
    sets += [_drawn(example, shapes, generator) for _ in range(_DRAWN)]
    if not axes.symbols:
        return sets, ()
    now, others = axes.sizes(example.tensors), axes.others(example.tensors)
    wanted = [dict(others)] if len(others) == 1 else [dict(others), *_one_by_one(now, others)]
    failed: dict[str, str] = {}
    for sizes in wanted:
        tensors = _drawn(example, axes.shapes(example.tensors, sizes), generator)
        said = ", ".join(f"{name}={size}" for name, size in sizes.items() if now[name] != size)
        try:
            call(model, *example.filled([one.clone() for one in tensors]))
        except Exception as error:  # noqa: BLE001  whatever a module says to a size
            failed[said] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            continue
        sets.append(tensors)
        if sizes == others:
            break
    return sets, tuple(
        f"the module itself does not run at {said} ({why})" for said, why in failed.items()
    )


def _negated(tensor: Tensor) -> Tensor:
    """The other sign takes the other way where a module decides by its data."""
    return -tensor if tensor.is_floating_point() else tensor


def _one_by_one(now: Mapping[str, int], others: Mapping[str, int]) -> list[dict[str, int]]:
    """Sizes that differ in one name only: for a module that does not take all at once."""
    return [{**now, name: size} for name, size in others.items()]


def _drawn(
    example: Example, shapes: Sequence[tuple[int, ...]], generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Draw numbers of the same kind, mean and spread as the example's."""
    pairs = zip(example.tensors, shapes, strict=True)
    return tuple(_like(tensor, shape, generator) for tensor, shape in pairs)


def _like(tensor: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    made: Tensor
    if tensor.dtype is torch.bool:
        made = torch.randint(0, 2, shape, generator=generator)
    elif tensor.is_complex():
        made = torch.randn(shape, generator=generator, dtype=torch.complex64)
    elif tensor.is_floating_point():
        numbers = tensor.detach().double().cpu()
        spread = float(numbers.std()) if tensor.numel() > 1 else 1.0
        mean = float(numbers.mean()) if tensor.numel() else 0.0
        made = torch.randn(shape, generator=generator, dtype=torch.float64)
        made = made * (spread or 1.0) + mean
    else:
        low, high = (int(tensor.min()), int(tensor.max())) if tensor.numel() else (0, 1)
        made = torch.randint(low, high + 1, shape, generator=generator)
    return made.to(device=tensor.device, dtype=tensor.dtype)


def open_outputs(
    axes: Axes,
    example: Example,
    sets: Sequence[Sequence[Tensor]],
    shapes: Sequence[Sequence[tuple[int, ...]]],
) -> tuple[Mapping[int, str], ...]:
    """Return which axes of the outputs changed with the inputs' sizes, and their names.

    Args:
        axes: Open axes of the inputs.
        example: The call.
        sets: The inputs that were tried.
        shapes: Of the outputs, for each of them.
    """
    found: list[dict[int, str]] = [{} for _ in shapes[0]]
    for tensors, given in zip(sets, shapes, strict=True):
        sizes = axes.sizes(tensors)
        before = axes.sizes(example.tensors)
        moved = [name for name, size in sizes.items() if size != before[name]]
        for place, (old, new) in enumerate(zip(shapes[0], given, strict=False)):
            for axis, (left, right) in enumerate(zip(old, new, strict=False)):
                if left != right:
                    names = [n for n in moved if (before[n], sizes[n]) == (left, right)]
                    found[place].setdefault(
                        axis, names[0] if names else f"size_{place}_{axis}"
                    )
    return tuple(found)
