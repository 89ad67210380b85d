"""How the memory allocator of the process behaves, for as long as a command runs."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""Parameters of mallopt (malloc.h of glibc)."""

_KEPT_BYTES: Final = 1 << 25


def keep_freed_memory() -> None:
    """Let up to 32 MiB that were freed be used again, rather than given back at once.

    Large models go through the cache in blocks of some MiB, each of which is allocated and
    freed. glibc by default maps such blocks, or trims its heap behind them: then every page of
    every block is a page fault and a page of zeros again, a quarter of the processor time of a
    proof (1.1 million faults for 6 GB; 0.2 million so). What is larger goes back as before.
    Only a command does this: the process of who imports bnfold is theirs. Other allocators
    have no such function, or ignore it.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
