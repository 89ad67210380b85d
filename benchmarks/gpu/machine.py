"""What machine this is, read without anything heavy: driver, clocks, versions."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Final

DRY: Final = "cpu (dry run)"
"""The name of the device of a dry run, so that nobody takes its figures for a GPU's."""

_PACKAGES: Final = (
    "bnfold",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxscript",
    "pytest",
    "timm",
    "torch",
    "triton",
)
_QUERY: Final = (
    "name",
    "driver_version",
    "pstate",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "temperature.gpu",
    "power.draw",
    "power.limit",
    "memory.total",
    "memory.used",
    "mig.mode.current",
    "persistence_mode",
)
_SMI_S: Final = 15.0
_CPUINFO: Final = Path("/proc/cpuinfo")


def gpu_name() -> str:
    """Return the name of the first CUDA device; empty where there is none.

    The driver itself is asked where ``nvidia-smi`` is not to be found, as in some containers.
    """
    rows = smi("name")
    return rows[0]["name"] if rows else _name_by_driver()


def _name_by_driver() -> str:
    with suppress(OSError, AttributeError):
        driver = ctypes.CDLL("libcuda.so.1")
        device, name = ctypes.c_int(), ctypes.create_string_buffer(128)
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), 0) == 0:
            driver.cuDeviceGetName(name, len(name), device)
            return name.value.decode("utf-8", "replace")
    return ""


def smi(*fields: str) -> list[dict[str, str]]:
    """Ask ``nvidia-smi`` for fields of every GPU; nothing where it is absent or fails."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    asked = [command, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            asked, capture_output=True, text=True, timeout=_SMI_S, check=False
        )
        if done.returncode == 0:
            lines = (line.split(",") for line in done.stdout.splitlines() if line.strip())
            return [dict(zip(fields, map(str.strip, cells), strict=False)) for cells in lines]
    return []


def reading() -> dict[str, str]:
    """Read the first GPU; fields that this driver does not know are left out."""
    rows = smi(*_QUERY)
    if rows:
        return rows[0]
    found: dict[str, str] = {}
    for field in _QUERY:
        one = smi(field)
        if not one and field == "name":
            return {}
        found |= one[0] if one else {}
    return found


def environment() -> dict[str, Any]:
    """Return what the figures rest on: machine, versions, and a reading of the GPU."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores(),
        "python": platform.python_version(),
        "versions": versions(),
        "gpu": reading(),
        "cuda_variables": {
            name: value for name, value in os.environ.items() if _is_about_cuda(name)
        },
    }


def _is_about_cuda(name: str) -> bool:
    return name.startswith(("CUDA_", "NVIDIA_", "CUDNN_", "ORT_"))


def versions() -> dict[str, str]:
    """Return the versions of the packages that matter, of those installed."""
    found = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    with suppress(OSError):
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def slug(name: str) -> str:
    """Return a name as a part of a file name: ``NVIDIA H100`` becomes ``nvidia-h100``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"
