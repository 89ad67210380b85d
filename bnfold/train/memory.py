"""Save less for the backward pass: drop outputs of our layers and rebuild them; count bytes.

What follows a BatchNorm, mostly a convolution, saves the layer's output for its own backward,
although the layer itself saves its input already. Inside `recompute()` that output is not
kept: the backward builds it again from the input and the batch's statistics, bit for bit.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


class Recipe:
    """How an output is built again, and from what."""

    def __init__(
        self, build: Callable[[], Tensor], sources: tuple[Tensor | None, ...]
    ) -> None:
        self.sources = tuple(source.detach() for source in sources if source is not None)
        self.kept: Tensor | None = None  # the output itself, where something keeps it anyway
        self._build = build
        self._versions = [source._version for source in self.sources]  # noqa: SLF001  # torch names it so
        self._built: weakref.ref[Tensor] | None = None

    def build(self) -> Tensor:
        """Return the output; the same tensor for all who ask while it lives."""
        if self.kept is not None:
            return self.kept
        built = None if self._built is None else self._built()
        if built is not None:
            return built
        versions = [source._version for source in self.sources]  # noqa: SLF001  # torch names it so
        if versions != self._versions:
            raise RuntimeError(
                "an input of a recomputed BatchNorm has been modified in place since its "
                "forward pass: leave bnfold.train.recompute(), or modify a copy"
            )
        with torch.no_grad():
            built = self._build()
        self._built = weakref.ref(built)
        return built


@dataclass(frozen=True, slots=True)
class Entry:
    """An output that can be rebuilt, while it is alive."""

    output: weakref.ref[Tensor]
    version: int
    recipe: Recipe

    def describes(self, tensor: Tensor) -> bool:
        """The tensor is this output: same memory, same view of it, not modified since."""
        output = self.output()
        return (
            output is not None
            and output._version == tensor._version == self.version  # noqa: SLF001  # torch names it so
            and (output.shape, output.stride()) == (tensor.shape, tensor.stride())
            and output.dtype == tensor.dtype
        )


@dataclass
class Ledger:
    """The outputs that can be rebuilt, by address."""

    entries: dict[int, Entry] = field(default_factory=dict)

    def find(self, tensor: Tensor) -> Recipe | None:
        """Return how a tensor can be rebuilt, or None."""
        entry = self.entries.get(tensor.data_ptr())
        return entry.recipe if entry is not None and entry.describes(tensor) else None

    def pack(self, tensor: Tensor) -> Tensor | Recipe:
        """Say what is kept in place of a tensor that autograd saves."""
        return self.find(tensor) or tensor


def unpack(kept: Tensor | Recipe) -> Tensor:
    """Return what autograd saved."""
    return kept.build() if isinstance(kept, Recipe) else kept


_ledgers: list[Ledger] = []
_counts: list[_Count] = []


def recomputing() -> bool:
    """True inside `recompute()`, but not while a compiler traces: it plans memory itself."""
    return bool(_ledgers) and not torch.compiler.is_compiling()


@contextmanager
def recompute() -> Iterator[None]:
    """Run the forward pass without keeping the outputs of our BatchNorm layers.

    Only the forward pass needs to be inside. Outputs that serve as a residual stay: the layer
    that adds them is rebuilt from them.
    """
    ledger = Ledger()
    _ledgers.append(ledger)
    try:
        with torch.autograd.graph.saved_tensors_hooks(ledger.pack, unpack):
            yield
    finally:
        _ledgers.remove(ledger)


def remember(
    y: Tensor, build: Callable[[], Tensor], x: Tensor, *others: Tensor | None
) -> Tensor:
    """Note that y can be rebuilt from x and the others; the first of them is the residual."""
    ledger = _ledgers[-1]
    residual = others[0]
    recipe = Recipe(build, (x, *others))
    if residual is not None and (of_residual := ledger.find(residual)) is not None:
        of_residual.kept = residual.detach()
    address = y.data_ptr()
    ledger.entries[address] = Entry(weakref.ref(y), y._version, recipe)  # noqa: SLF001  # torch names it so
    for count in _counts:
        count.note(recipe)
    return y


@dataclass(frozen=True, slots=True)
class SavedBytes:
    """What a training step keeps between its forward and its backward pass.

    Parameters and buffers are left out: they are there anyway. Memory that several layers save
    counts once, for the layer that saved it first.
    """

    total_bytes: int
    layers: dict[str, int]

    def __str__(self) -> str:
        """Show the layers, largest first."""
        rows = sorted(self.layers.items(), key=lambda item: -item[1])
        lines = [
            f"{size_bytes:>14,}  {name or '(the model itself)'}" for name, size_bytes in rows
        ]
        return "\n".join([*lines, f"{self.total_bytes:>14,}  in all"])


class _Count:
    """Adds up the memory that is kept, by the innermost module that is running."""

    def __init__(self, model: nn.Module) -> None:
        self.running = [""]
        self.layers: dict[str, int] = {}
        self._seen = {
            tensor.untyped_storage().data_ptr(): tensor
            for tensor in (*model.parameters(), *model.buffers())
        }

    def note(self, kept: Tensor | Recipe) -> None:
        """Count memory that is new, and hold it, so that no address comes back."""
        for tensor in kept.sources if isinstance(kept, Recipe) else (kept,):
            storage = tensor.untyped_storage()
            if storage.data_ptr() in self._seen or storage.nbytes() == 0:
                continue
            self._seen[storage.data_ptr()] = tensor
            name = self.running[-1]
            self.layers[name] = self.layers.get(name, 0) + storage.nbytes()

    def pack(self, tensor: Tensor) -> Tensor | Recipe:
        """Count what is kept in place of a tensor."""
        kept = _ledgers[-1].pack(tensor) if _ledgers else tensor
        self.note(kept)
        return kept

    def enter(self, name: str) -> Callable[..., None]:
        """Return a hook that says: this module runs now."""
        return lambda *_: self.running.append(name)

    def leave(self, *_: Any) -> None:
        """Hook: the module that runs has ended."""
        self.running.pop()


def saved_bytes(model: nn.Module, *args: Any, **kwargs: Any) -> SavedBytes:
    """Run a forward pass and return the bytes that it saves for the backward, layer by layer.

    The model is left as it was, running statistics included. Inside `recompute()` the report
    is of that mode.
    """
    count = _Count(model)
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(count.enter(name), prepend=True))
        handles.append(module.register_forward_hook(count.leave, always_call=True))
    _counts.append(count)
    try:
        with (
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(count.pack, unpack),
        ):
            model(*args, **kwargs)
    finally:
        _counts.remove(count)
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    return SavedBytes(sum(count.layers.values()), count.layers)
