"""What a module is called with: tensors by name, whatever tuples and dicts they stand in."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bnfold.errors import UsageError

_SPEC: Final = re.compile(r"(?:(?P<name>[^:=]*?)(?::(?P<kind>\w+))?=)?(?P<sizes>[\dx×,]+)")
_INT_TOP: Final = 8
_REMEDY: Final = "write NAME=1x3x224x224, or NAME:int64=1x128"


@dataclass(frozen=True, slots=True)
class Example:
    """One call of a module.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments, those that cannot be given by position.
        names: Name of every tensor in them, in order.
        spelled: Whether there are only tensors, by position, and nothing nested.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    names: tuple[str, ...]
    spelled: bool

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor of the call, in order."""
        leaves = pytree.tree_leaves((self.args, self.kwargs))
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def filled(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with other tensors in the places of these."""
        leaves, structure = pytree.tree_flatten((self.args, self.kwargs))
        fresh = iter(tensors)
        leaves = [next(fresh) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(leaves, structure)
        return args, kwargs

    def with_tensors(self, tensors: Sequence[Tensor]) -> Example:
        """Return the same call with other tensors."""
        return Example(*self.filled(tensors), self.names, self.spelled)


def example_of(
    model: nn.Module, args: object, kwargs: Mapping[str, Any] | None, names: Sequence[str]
) -> Example:
    """Return the call of a module with the arguments that a user gave.

    Args:
        model: The module.
        args: A tensor, a tuple or list of arguments, or arguments by name.
        kwargs: Arguments by name.
        names: Names for the tensors, the first first; their own for those behind.

    Raises:
        UsageError: If the arguments do not fit, or hold no tensor.
    """
    given: tuple[Any, ...] = ()
    named = dict(kwargs or {})
    if isinstance(args, Mapping):
        named = {**args, **named}
    else:
        given = tuple(args) if isinstance(args, tuple | list) else (args,)
    given, named = pytree.tree_map(_as_tensor, (given, named))
    bound = _bound(model, given, named)
    own = tuple(_names_in(bound))
    if not own:
        raise UsageError(
            "there is no tensor among the arguments",
            where=f"{type(model).__name__}.forward{inspect.signature(model.forward)}",
            remedy="give example tensors: bnfold.export(model, (x,), path)",
        )
    if len(names) > len(own):
        raise UsageError(
            "there are more names than inputs",
            why=f"{len(names)} names are given, the call has {len(own)}: {', '.join(own)}",
            remedy="give one name for each tensor",
        )
    wanted = _distinct((*names, *own[len(names) :]))
    plain = not bound.kwargs and all(isinstance(one, Tensor) for one in bound.args)
    return Example(tuple(bound.args), dict(bound.kwargs), wanted, plain)


def _as_tensor(leaf: object) -> object:
    return torch.from_numpy(np.array(leaf)) if isinstance(leaf, np.ndarray) else leaf


def _bound(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> inspect.BoundArguments:
    try:
        return inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError as error:
        raise UsageError(
            "the example arguments do not fit the module",
            where=f"{type(model).__name__}.forward{inspect.signature(model.forward)}",
            why=str(error),
            remedy="give (args) or (args, kwargs) as you would call the module",
        ) from error


def _names_in(bound: inspect.BoundArguments) -> Iterator[str]:
    """Name tensors after the parameter and the place in it, in the order of a flat call."""
    for name, value in _in_order(bound):
        for path, leaf in pytree.tree_flatten_with_path(value)[0]:
            if isinstance(leaf, Tensor):
                yield "_".join((name, *(_part(key) for key in path)))


def _in_order(bound: inspect.BoundArguments) -> Iterator[tuple[str, Any]]:
    """Yield parameters by position first, as `Example.tensors` has them."""
    late = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    kinds = bound.signature.parameters
    for wanted in (False, True):
        for name, value in bound.arguments.items():
            if (kinds[name].kind in late) != wanted:
                continue
            if kinds[name].kind is inspect.Parameter.VAR_KEYWORD:
                yield from value.items()
            else:
                yield name, value


def _part(key: object) -> str:
    for attribute in ("idx", "key", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def output_names(
    outputs: object, names: Sequence[str], taken: Sequence[str]
) -> tuple[str, ...]:
    """Name the tensors of a result after their place in it.

    Args:
        outputs: What the module returned.
        names: Names that the user chose, the first first.
        taken: Names that inputs have.
    """
    found = pytree.tree_flatten_with_path(outputs)[0]
    paths = [path for path, leaf in found if isinstance(leaf, Tensor)]
    if len(paths) == 1:
        own = ["output"]
    else:
        own = ["_".join(_part(key) for key in path) for path in paths]
        own = [f"output_{one}" if one[:1].isdigit() else one for one in own]
    if len(names) > len(own):
        raise UsageError(
            "there are more names than outputs",
            why=f"{len(names)} names are given, the module returns {len(own)} tensors",
            remedy="give one name for each tensor",
        )
    return _distinct((*names, *own[len(names) :]), taken)


def _distinct(names: Sequence[str], taken: Sequence[str] = ()) -> tuple[str, ...]:
    found: list[str] = []
    for name in names:
        fresh, count = name, 1
        while fresh in found or fresh in taken:
            count += 1
            fresh = f"{name}_{count}"
        found.append(fresh)
    return tuple(found)


def tensors_in(outputs: object) -> tuple[Tensor, ...]:
    """Return the tensors of a result, in order."""
    leaves = pytree.tree_leaves(outputs)
    return tuple(leaf.detach() for leaf in leaves if isinstance(leaf, Tensor))


def drawn_arguments(
    model: nn.Module, specs: Sequence[str], seed: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return seeded arguments for a module, of sizes that a user wrote down.

    Args:
        model: The module; its first parameter takes a size without a name.
        specs: Such as ``x=1x3x224x224`` or ``ids:int64=1x128``.
        seed: Of the numbers.

    Raises:
        UsageError: If one cannot be read, or the module has no such parameter.
    """
    generator = torch.Generator().manual_seed(seed)
    known = list(inspect.signature(model.forward).parameters)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None:
            raise UsageError("this input cannot be read", where=spec, remedy=_REMEDY)
        drawn = _drawn(match["kind"] or "float32", match["sizes"], generator, spec)
        name = match["name"]
        if name and name not in known:
            raise UsageError(
                "the module has no such input",
                where=spec,
                why=f"{type(model).__name__}.forward takes {', '.join(known)}",
                remedy=_REMEDY,
            )
        if name and name != known[min(len(args), len(known) - 1)]:
            kwargs[name] = drawn
        else:
            args.append(drawn)
    return tuple(args), kwargs


def _drawn(kind: str, sizes: str, generator: torch.Generator, spec: str) -> Tensor:
    shape = tuple(int(size) for size in re.split("[x×,]", sizes) if size)
    dtype = getattr(torch, kind, None)
    if not isinstance(dtype, torch.dtype):
        raise UsageError(f"torch has no type {kind!r}", where=spec, remedy=_REMEDY)
    if dtype is torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, _INT_TOP, shape, generator=generator).to(dtype)
