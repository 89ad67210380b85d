"""A CUDA driver without a device: kernels are compiled as a launch asks, and not launched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from bnfold.train.kernels import backward, forward

SHARED_BYTES = 227 * 1024  # what a program may have on sm_90
MOST = (2**31 - 1, 65535, 65535)  # programs along each axis of a grid


@dataclass
class Launch:
    """What would have been launched."""

    name: str
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]


@dataclass
class Log:
    """What was compiled, and what launched."""

    keeps_launches: bool = True
    compiled: set[tuple[str, str]] = field(default_factory=set)  # name and hash
    launches: list[Launch] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The kernels, in order."""
        return [launch.name for launch in self.launches]


class Driver:
    """As much of triton's CUDA driver as a launch needs."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.utils = self

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        """Return what triton calls to launch a kernel."""
        name, expected = metadata.name, len(source.fn.arg_names)
        self.log.compiled.add((name, metadata.hash))

        def launch(x: int, y: int, z: int, *others: Any) -> None:
            arguments = others[-expected:]
            assert len(others) == expected + 6, "stream, function, metadata, two hooks"
            if self.log.keeps_launches:
                self.log.launches.append(Launch(name, (x, y, z), arguments))

        return launch

    def get_current_target(self) -> GPUTarget:
        """An H100."""
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        """The only one."""
        return 0

    def get_current_stream(self, _device: int) -> int:
        """The default one."""
        return 0

    def get_device_properties(self, _device: int) -> dict[str, int]:
        """What triton asks before it loads a kernel."""
        return {"max_shared_mem": SHARED_BYTES}

    def load_binary(self, *_arguments: Any) -> tuple[None, int, int, int, int]:
        """Module, function, registers, spills, threads."""
        return None, 1, 64, 0, 1024  # no module: there will be nothing to unload


def kernels_of_training() -> list[Any]:
    """Return every kernel of bnfold.train."""
    both = (*vars(forward).values(), *vars(backward).values())
    return [kernel for kernel in both if isinstance(kernel, triton.JITFunction)]


@contextmanager
def compiled_only(*, keeps_launches: bool = True) -> Iterator[Log]:
    """Launch nothing, but compile; forget all about it afterwards.

    A launch that is kept holds its tensors, as no real one does.
    """
    kernels = kernels_of_training()
    log, before = Log(keeps_launches), driver._active  # noqa: SLF001  # no public name
    caches = [dict(kernel.device_caches) for kernel in kernels]
    for kernel in kernels:
        kernel.device_caches.clear()
    driver.set_active(Driver(log))
    try:
        yield log
    finally:
        driver._active = before  # noqa: SLF001  # as above
        for kernel, cache in zip(kernels, caches, strict=True):
            kernel.device_caches.clear()
            kernel.device_caches.update(cache)
