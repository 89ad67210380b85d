"""Two ways to time work on a device: as called from Python, and with the CPU out of the way.

*Called*: one call on an idle device, between two events. While the CPU prepares the next
launch the device waits, and that is in it: what a user sees who runs nothing else.

*Queued*: several calls wait behind a kernel that sleeps until all of them are launched, so the
device runs one after the other: what the kernels take. If the sleep ended too soon the sample
is taken again behind a longer one; what still was too soon is counted.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import torch

Work = Callable[[], Any]
_FIRST_MS: Final = 2.0  # of sleep for each call, until it is known how long launching takes
_REACH: Final = 1.6
_LEAST_MS: Final = 0.3
_LONGEST_MS: Final = 400.0
_TRIES: Final = 3
_CALIBRATION_CYCLES: Final = 20_000_000


class Clock(Protocol):
    """What times work.

    Attributes:
        is_devices: Whether it is the clock of a device, and not of a dry run.
        too_soon: How many samples had a device that ran ahead of the CPU.
    """

    is_devices: bool
    too_soon: int

    def called(self, work: Work) -> float:
        """Milliseconds of one call on an idle device."""

    def queued(self, name: str, calls: Sequence[Work]) -> float:
        """Milliseconds of one of several calls that are launched before the first one runs.

        `name` stands for calls that take equally long to launch.
        """


class HostClock:
    """The processor's own clock, where there is no device: for dry runs."""

    is_devices = False

    def __init__(self) -> None:
        self.too_soon = 0

    def called(self, work: Work) -> float:
        """Milliseconds of one call."""
        started = time.perf_counter()
        work()
        return (time.perf_counter() - started) * 1e3

    def queued(self, name: str, calls: Sequence[Work]) -> float:  # noqa: ARG002  # as of every clock
        """Milliseconds of one of several calls."""
        return self.called(lambda: [call() for call in calls]) / len(calls)


class DeviceClock:
    """The device's own clock, by events on its stream."""

    is_devices = True

    def __init__(self) -> None:
        self.too_soon = 0
        self._launch_ms: dict[str, float] = {}
        self._cycles_per_ms = 1e6
        torch.cuda._sleep(1000)  # noqa: SLF001  # loads the kernel; there is no public one
        taken = self.called(lambda: torch.cuda._sleep(_CALIBRATION_CYCLES))  # noqa: SLF001  # as above
        self._cycles_per_ms = _CALIBRATION_CYCLES / taken

    def called(self, work: Work) -> float:
        """Milliseconds of one call on an idle device, what the CPU takes included."""
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        before.record()
        kept = work()
        after.record()
        after.synchronize()
        del kept
        return float(before.elapsed_time(after))

    def queued(self, name: str, calls: Sequence[Work]) -> float:
        """Milliseconds of one of several calls, the CPU out of the way.

        What calls return is held until all have run: else the next one would write where the
        last one did, and find that memory in the cache.
        """
        sleep_ms = self._launch_ms.get(name, _FIRST_MS * len(calls))
        for attempt in range(_TRIES):
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            torch.cuda._sleep(int(sleep_ms * self._cycles_per_ms))  # noqa: SLF001  # as above
            started = time.perf_counter()
            before.record()
            kept = [call() for call in calls]
            after.record()
            launch_ms = (time.perf_counter() - started) * 1e3
            slept_long_enough = not before.query()
            after.synchronize()
            del kept
            self._launch_ms[name] = _LEAST_MS + _REACH * launch_ms
            if slept_long_enough or attempt == _TRIES - 1:
                break
            sleep_ms = min(max(2 * sleep_ms, _REACH * launch_ms), _LONGEST_MS)
        self.too_soon += not slept_long_enough
        return float(before.elapsed_time(after)) / len(calls)


def clock_of(device: str) -> Clock:
    """Return what times work on a device."""
    return DeviceClock() if device == "cuda" else HostClock()


@contextmanager
def without_collection() -> Iterator[None]:
    """Collect garbage now, and then only when asked, which what is there makes no longer."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def peak_bytes(work: Work) -> int | None:
    """Return the most device memory that a call holds beyond what was held before."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)


def l2_bytes() -> int:
    """Return the size of the device's second cache; nothing where there is no device."""
    if not torch.cuda.is_available():
        return 0
    return int(torch.cuda.get_device_properties(0).L2_cache_size)
