"""Save less for the backward pass: drop outputs of our layers and rebuild them; count bytes.

What follows a BatchNorm, mostly a convolution, saves the layer's output for its own backward,
although the layer itself saves its input already. Inside `recompute()` that output is not
kept: the backward builds it again from the input and the batch's statistics, bit for bit.

With a residual it is built from that, too; so it is only where something keeps the residual
anyway. In a chain of residual blocks that is every other output.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)


class Recipe:
    """How an output is built again, and from what."""

    def __init__(
        self, build: Callable[[], Tensor], sources: tuple[Tensor | None, ...]
    ) -> None:
        self.sources = tuple(source.detach() for source in sources if source is not None)
        self._build = build
        self._versions = [source._version for source in self.sources]  # noqa: SLF001  # torch names it so
        self._built: weakref.ref[Tensor] | None = None

    def build(self) -> Tensor:
        """Return the output; the same tensor for all who ask while it lives."""
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
class View:
    """A part of an output, or the output in another shape."""

    recipe: Recipe
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int

    def build(self) -> Tensor:
        """Return the view of the rebuilt output."""
        with torch.no_grad():
            return self.recipe.build().as_strided(self.shape, self.stride, self.offset)


@dataclass(frozen=True, slots=True)
class Entry:
    """An output that can be rebuilt.

    While the reference to its storage is held, no other storage gets that address.
    """

    storage: StorageWeakRef
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int
    version: int
    dtype: torch.dtype
    recipe: Recipe

    @classmethod
    def of(cls, y: Tensor, recipe: Recipe) -> Entry:
        """Return the entry of an output."""
        storage: Any = StorageWeakRef(y.untyped_storage())  # type: ignore[no-untyped-call]  # torch's
        version = y._version  # noqa: SLF001  # torch names it so
        offset = int(y.storage_offset())
        return cls(storage, y.shape, y.stride(), offset, version, y.dtype, recipe)

    def describes(self, tensor: Tensor) -> bool:
        """The tensor is this output or a view of it, not modified since."""
        return (
            tensor._version == self.version  # noqa: SLF001  # torch names it so
            and tensor.dtype == self.dtype
            and not (tensor.is_conj() or tensor.is_neg())
        )


@dataclass(eq=False)
class Ledger:
    """The outputs that can be rebuilt, and what is kept as it is, by their storage."""

    entries: dict[int, Entry] = field(default_factory=dict)
    held: dict[int, Any] = field(default_factory=dict)

    def find(self, tensor: Tensor) -> Recipe | View | None:
        """Return how a tensor can be rebuilt, or None."""
        if tensor.layout is not torch.strided:
            return None
        entry = self.entries.get(tensor.untyped_storage()._cdata)  # noqa: SLF001  # its address
        if entry is None or not entry.describes(tensor):
            return None
        shape, stride, offset = tensor.shape, tensor.stride(), int(tensor.storage_offset())
        if (shape, stride, offset) == (entry.shape, entry.stride, entry.offset):
            return entry.recipe
        return View(entry.recipe, shape, stride, offset - entry.offset)

    def pack(self, tensor: Tensor) -> Tensor | Recipe | View:
        """Say what is kept in place of a tensor that autograd saves."""
        found = self.find(tensor)
        if found is not None:
            return found
        self.hold(tensor)
        return tensor

    def hold(self, tensor: Tensor) -> None:
        """Note that something keeps this tensor until the backward."""
        if tensor.layout is torch.strided:
            storage: Any = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]  # torch's
            self.held[tensor.untyped_storage()._cdata] = storage  # noqa: SLF001  # its address

    def holds(self, tensor: Tensor | None) -> bool:
        """Something keeps this tensor anyway; nothing at all is always there."""
        if tensor is None:
            return True
        if tensor.layout is not torch.strided:
            return False
        storage = self.held.get(tensor.untyped_storage()._cdata)  # noqa: SLF001  # its address
        return storage is not None and not storage.expired()

    def forget(self) -> None:
        """Drop what nobody can ask for: its memory is gone, and with it what it rests on."""
        gone = [key for key, entry in self.entries.items() if entry.storage.expired()]  # type: ignore[no-untyped-call]  # torch's
        for key in gone:
            del self.entries[key]


def unpack(kept: Tensor | Recipe | View) -> Tensor:
    """Return what autograd saved."""
    return kept if isinstance(kept, Tensor) else kept.build()


class _State(threading.local):
    """What is recomputed and counted in this thread: torch's hooks are of one thread, too."""

    def __init__(self) -> None:
        self.ledgers: list[Ledger] = []
        self.counts: list[_Count] = []


_state = _State()


def recomputing() -> bool:
    """True inside `recompute()`, where nobody else says what is saved.

    A compiler plans memory itself. And what runs inside of a checkpoint, or of hooks that move
    tensors away, is saved their way: there it would be built in vain, and a checkpoint, which
    runs its forward again outside of `recompute()`, must find the same operators.
    """
    if torch.compiler.is_compiling() or not _state.ledgers:
        return False
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)  # noqa: FBT003, SLF001  # torch's
    who = None if hooks is None else getattr(hooks[0], "__self__", None)
    return isinstance(who, (Ledger, _Count))


@contextmanager
def recompute() -> Iterator[None]:
    """Run the forward pass without keeping the outputs of our BatchNorm layers.

    Only the forward pass needs to be inside. Of outputs that are each other's residual every
    other one stays: the next one is rebuilt from it. It is about the calling thread alone.
    """
    ledger = Ledger()
    _state.ledgers.append(ledger)
    try:
        with torch.autograd.graph.saved_tensors_hooks(ledger.pack, unpack):
            yield
    finally:
        _state.ledgers.remove(ledger)


def is_worth_it(x: Tensor, residual: Tensor | None) -> bool:
    """Nothing more would be kept if x and the residual were, for a layer to be run again."""
    ledger = _state.ledgers[-1]
    return ledger.find(x) is None and ledger.holds(residual)


def hold(x: Tensor) -> None:
    """Note that x is kept without autograd's knowing, as a checkpoint keeps its arguments."""
    _state.ledgers[-1].hold(x)
    for count in _state.counts:
        count.note(x)


def remember(
    y: Tensor,
    build: Callable[[], Tensor],
    x: Tensor,
    residual: Tensor | None,
    *others: Tensor | None,
) -> None:
    """Note that y can be rebuilt from the others, if what is as large as y is kept anyway."""
    ledger = _state.ledgers[-1]
    ledger.forget()
    if ledger.holds(x) and ledger.holds(residual):
        recipe = Recipe(build, (x, residual, *others))
        ledger.entries[y.untyped_storage()._cdata] = Entry.of(y, recipe)  # noqa: SLF001  # its address


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
        self._names = {module: name for name, module in model.named_modules()}
        self._seen = {
            tensor.untyped_storage().data_ptr(): tensor
            for tensor in (*model.parameters(), *model.buffers())
        }

    def note(self, kept: Tensor | Recipe | View) -> None:
        """Count memory that is new, and hold it, so that no address comes back."""
        recipe = kept.recipe if isinstance(kept, View) else kept
        for tensor in (recipe,) if isinstance(recipe, Tensor) else recipe.sources:
            storage = tensor.untyped_storage()
            if storage.data_ptr() in self._seen or storage.nbytes() == 0:
                continue
            self._seen[storage.data_ptr()] = tensor
            name = self.running[-1]
            self.layers[name] = self.layers.get(name, 0) + storage.nbytes()

    def pack(self, tensor: Tensor) -> Tensor | Recipe | View:
        """Count what is kept in place of a tensor."""
        kept = _state.ledgers[-1].pack(tensor) if _state.ledgers else tensor
        self.note(kept)
        return kept

    def enter(self, module: nn.Module, *_: Any) -> None:
        """Hook: a module runs now."""
        if module in self._names and self in _state.counts:
            self.running.append(self._names[module])

    def leave(self, module: nn.Module, *_: Any) -> None:
        """Hook: the module that runs has ended."""
        if module in self._names and self in _state.counts:
            self.running.pop()


def saved_bytes(model: nn.Module, *args: Any, **kwargs: Any) -> SavedBytes:
    """Run a forward pass and return the bytes that it saves for the backward, layer by layer.

    The model is left as it was, running statistics included. Inside `recompute()` the report
    is of that mode.
    """
    count = _Count(model)
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    # Hooks of every module there is: a converted one with its own would run unfused.
    handles = [
        register_module_forward_pre_hook(count.enter),
        register_module_forward_hook(count.leave, always_call=True),
    ]
    _state.counts.append(count)
    try:
        with (
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(count.pack, unpack),
        ):
            model(*args, **kwargs)
    finally:
        _state.counts.remove(count)
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    return SavedBytes(sum(count.layers.values()), count.layers)
