"""Bounds on what a model may ask for: elements, memory, nodes, depth.

A file of a few hundred bytes can describe a constant of a terabyte. So what is computed is
judged by its size before it is made, and what a process may allocate is bounded. The bounds
are ambient: whoever calls bnfold sets them for a block,
``with limited(elements=1 << 28): bnfold.fold(model)``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final

FREE_ELEMENTS: Final = 1 << 22
"""So many elements a computed constant may have whatever the model stores."""
BASE_BYTES: Final = 1 << 30
"""What a process may allocate for the smallest of models."""
_PER_CORE_BYTES: Final = 16 << 20
"""Runtimes start a thread for each core: its stack, and a heap of its own."""
_PER_FILE_BYTE: Final = 8
_PER_GRAPH_BYTE: Final = 256
_MOST_GRAPH_BYTES: Final = 1 << 26
"""A node takes 60 to 80 bytes of a file, and 12 kB as objects of two models that are compared.
What a file holds beyond 64 MiB is taken for weights."""
_PER_INPUT_BYTE: Final = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model may ask for.

    Attributes:
        elements: Elements of one computed constant at most, and of one value of the reference.
        nodes: Nodes at most that the calls of functions stand for once they are written out.
        depth: How deep graphs in graphs, and functions in functions, may be nested.
        memory_bytes: What one process of ours may allocate; None: 1 GiB, 16 MiB for each core,
            8 bytes for each byte of the model's files, and 16 for each of its inputs.
        growth_bytes: What one weight that nodes compute may take beyond the tensors that it is
            computed from; 4 KiB are free (a narrower type) or 256 KiB (fewer elements).
    """

    elements: int = 1 << 27
    nodes: int = 1_000_000
    depth: int = 64
    memory_bytes: int | None = None
    growth_bytes: int = 0

    def constant_elements(self, stored: int) -> int:
        """Return how many elements a constant may have in a model that stores so many.

        A computed constant takes the place of stored ones: it may not be larger than all of
        them together, nor than `elements`; small ones are free.
        """
        return min(self.elements, max(FREE_ELEMENTS, stored))

    def process_bytes(self, file_bytes: int, input_bytes: int = 0) -> int:
        """Return what a process may allocate that runs models of so many bytes."""
        if self.memory_bytes is not None:
            return self.memory_bytes
        base = BASE_BYTES + _PER_CORE_BYTES * (os.cpu_count() or 1)
        graph = _PER_GRAPH_BYTE * min(file_bytes, _MOST_GRAPH_BYTES)
        return base + graph + _PER_FILE_BYTE * file_bytes + _PER_INPUT_BYTE * input_bytes


_CURRENT: Final[ContextVar[Limits]] = ContextVar("bnfold.limits")


def current() -> Limits:
    """Return the bounds that hold here."""
    return _CURRENT.get(Limits())


@contextmanager
def limited(
    *,
    elements: int | None = None,
    nodes: int | None = None,
    depth: int | None = None,
    memory_bytes: int | None = None,
    growth_bytes: int | None = None,
) -> Iterator[Limits]:
    """Change bounds for a block; what is None stays as it is.

    Args:
        elements: As of `Limits`.
        nodes: As of `Limits`.
        depth: As of `Limits`.
        memory_bytes: As of `Limits`; holds for the processes that are started.
        growth_bytes: As of `Limits`.
    """
    changes = {
        "elements": elements,
        "nodes": nodes,
        "depth": depth,
        "memory_bytes": memory_bytes,
        "growth_bytes": growth_bytes,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    token = _CURRENT.set(replace(current(), **given))
    try:
        yield current()
    finally:
        _CURRENT.reset(token)
