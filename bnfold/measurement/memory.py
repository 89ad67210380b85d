"""How much memory this process has taken, on the host and on a CUDA device."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")
_KIB: Final = 1024
_ON_CUDA: Final = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider"})


def peak_host_bytes() -> int | None:
    """The largest resident memory so far; None where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(one.split()[1]) * _KIB for one in lines if one.startswith("VmHWM:"))
    with suppress(ImportError, OSError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * _KIB
    return None


def device_used_bytes(provider: str) -> int | None:
    """Memory in use on the current CUDA device, by whomever; None where there is none.

    Asks the driver (``cuMemGetInfo`` of the CUDA driver API) in the context that the runtime
    made current.
    """
    if provider not in _ON_CUDA:
        return None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    with suppress(OSError, AttributeError):
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        if driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0:
            return total.value - free.value
    return None
