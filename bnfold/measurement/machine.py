"""Where something is measured: read, never changed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final

from bnfold.records import DeviceState, Machine

_STAT: Final = Path("/proc/stat")
_CPUINFO: Final = Path("/proc/cpuinfo")
_STOLEN: Final = 8
_PACKAGES: Final = (
    "bnfold",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnx",
    "numpy",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
    "tensorrt",
)
_QUERY: Final = (
    "clocks.sm",
    "clocks.mem",
    "temperature.gpu",
    "power.draw",
    "memory.used",
    "clocks_event_reasons.active",
)
_REASONS: Final = {
    0x2: "application clocks setting",
    0x4: "power cap (software)",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake (hardware)",
    0x100: "display clocks setting",
}
"""Bits of nvmlClocksEventReasons (NVML API reference); 0x1 is an idle GPU, which is fine."""

_SMI_TIMEOUT_S: Final = 10.0
_MIB: Final = 1 << 20


@dataclass(slots=True)
class Watch:
    """Reads the machine before, during and after a benchmark.

    Attributes:
        on_gpu: Whether a CUDA device is measured.
        begun_s: When it began, by the monotonic clock.
    """

    on_gpu: bool
    begun_s: float = field(default_factory=time.monotonic)
    _load: float | None = field(default_factory=lambda: _load())
    _jiffies: tuple[int, int] | None = field(default_factory=lambda: _jiffies())
    _readings: list[DeviceState] = field(default_factory=list)

    def read(self) -> None:
        """Take a reading of the GPU, if one is measured."""
        if self.on_gpu:
            self._readings.extend(_device_states(time.monotonic() - self.begun_s))

    def report(self) -> Machine:
        """Return what was read, up to now."""
        return Machine(
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            processor=_processor(),
            cores=_cores(),
            memory_bytes=memory_bytes(),
            device=_device_name() if self.on_gpu else "",
            versions=_versions(),
            load_before=self._load,
            load_after=_load(),
            stolen=_stolen(self._jiffies, _jiffies()),
            readings=tuple(self._readings),
        )


def _processor() -> str:
    with suppress(OSError):
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Main memory; None if the system does not tell."""
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _versions() -> Mapping[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _load() -> float | None:
    with suppress(AttributeError, OSError):
        return os.getloadavg()[0]
    return None


def _jiffies() -> tuple[int, int] | None:
    """Stolen and all CPU time so far (proc(5), /proc/stat); None where there is no such."""
    with suppress(OSError, ValueError, IndexError):
        fields = [
            int(one) for one in _STAT.read_text(encoding="ascii").split("\n")[0].split()[1:]
        ]
        return fields[_STOLEN - 1], sum(fields[:_STOLEN])
    return None


def _stolen(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    if before is None or after is None or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])


def _smi(*arguments: str) -> list[list[str]]:
    """Rows of nvidia-smi; none where it is absent or fails."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            [command, *arguments, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_SMI_TIMEOUT_S,
            check=False,
        )
        if done.returncode == 0:
            lines = done.stdout.splitlines()
            return [
                [cell.strip() for cell in line.split(",")] for line in lines if line.strip()
            ]
    return []


def _device_name() -> str:
    rows = _smi("--query-gpu=name,driver_version")
    return f"{rows[0][0]}, driver {rows[0][1]}" if rows and len(rows[0]) > 1 else "unknown GPU"


def _device_states(when_s: float) -> Iterator[DeviceState]:
    """One reading of the first GPU; older drivers know the reasons by another name."""
    rows = _smi(f"--query-gpu={','.join(_QUERY)}") or _smi(
        f"--query-gpu={','.join(_QUERY)}".replace("clocks_event", "clocks_throttle")
    )
    if not rows or len(rows[0]) < len(_QUERY):
        return
    clock, memory_clock, temperature, power, used, reasons = rows[0][: len(_QUERY)]
    used_mib = _number(used)
    yield DeviceState(
        when_s=when_s,
        sm_clock_mhz=_number(clock),
        memory_clock_mhz=_number(memory_clock),
        temperature_c=_number(temperature),
        power_w=_number(power),
        throttled=_reasons(reasons),
        used_bytes=None if used_mib is None else int(used_mib) * _MIB,
        processes=_other_processes(),
    )


def _number(text: str) -> float | None:
    with suppress(ValueError):
        return float(text)
    return None


def _reasons(text: str) -> tuple[str, ...]:
    with suppress(ValueError):
        bits = int(text, 16)
        return tuple(words for bit, words in _REASONS.items() if bits & bit)
    return ()


def _other_processes() -> tuple[str, ...]:
    ours = str(os.getpid())
    rows = _smi("--query-compute-apps=pid,process_name")
    return tuple(f"{row[1]} ({row[0]})" for row in rows if len(row) > 1 and row[0] != ours)
