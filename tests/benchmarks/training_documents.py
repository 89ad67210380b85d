"""Documents of training that nobody measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.gpu import targets
from benchmarks.gpu.training_plan import AUTOCAST, Layer, Net, Task, described

LARGE = Layer(256, 256, 56, "bfloat16", channels_last=True, kind="bn+add+relu")
SMALL = Layer(16, 2048, 7, "bfloat16", channels_last=True, kind="bn+relu")
PLAIN = Layer(256, 64, 112, "float16", channels_last=True, kind="bn")
NET = Net("resnet50", 256, AUTOCAST[0])
CUDNN = ["void cudnn::batchnorm_fwtr_nhwc_semiPersist<float>()"]


def figure(value: float, reach: float = 0.01) -> dict[str, float]:
    """A figure with its interval."""
    return {"value": value, "low": value - reach, "high": value + reach}


def row(
    task: Task, speed: float = 2.0, called: float = 1.2, copied: float = 0.9, **changed: Any
) -> dict[str, Any]:
    """What a task may have found: ``speed`` is the time of every rival over ours."""
    found = described(task) | {"code": "c", "outcome": "measured", "failures": {}}
    if isinstance(task, Net):
        return found | _of_net(task, speed) | changed
    ms = {"step queued": 1.0, "forward queued": 0.4, "backward queued": 0.6}
    pair = {"step queued": figure(speed), "step called": figure(called)}
    rivals = [arm for arm in ("eager", "compiled") if arm in task.arms]
    found |= {
        "bytes": targets.bytes_of(task),
        "medians_ms": dict.fromkeys(("eager", "again", "compiled", "ours"), ms),
        "ratios": {f"{arm} / ours": pair for arm in rivals}
        | {"again / eager": {"step queued": figure(1.0)}},
        "of_copy": {
            "ours": {part: figure(copied) for part in ("forward", "backward", "step")}
        },
        "peak_bytes": {"eager": 3_000_000, "compiled": 2_000_000, "ours": 1_000_000},
        "errors": {"y": 0.9, "dx": 1.2},
        "correct": True,
        "backend": "native",
    }
    return found | ({"kernels": CUDNN} if task.dtype == "float16" else {}) | changed


def _of_net(net: Net, speed: float) -> dict[str, Any]:
    arms = ("eager", "compiled", "ours")
    sizes = {"eager": 20_000_000_000, "compiled": 15_000_000_000, "ours": 10_000_000_000}
    return {
        "medians_ms": {arm: {"step": 100.0} for arm in arms},
        "images_per_s": dict.fromkeys(arms, 10.0 * net.batch),
        "ratios": {f"{arm} / ours": {"step": figure(speed)} for arm in arms[:2]},
        "peak_bytes": sizes,
        "saved_bytes": sizes,
        "agrees": dict.fromkeys(arms, True),
        "fusions": {"relu": 33, "addition + relu": 16},
    }


def document(
    rows: Sequence[dict[str, Any]],
    planned: Sequence[Task] = (LARGE, SMALL, PLAIN, NET),
    *,
    dry_run: bool = False,
) -> dict[str, Any]:
    """A document of a run, without its targets."""
    known = {one["key"] for one in rows}
    part = {
        "planned": [described(task) for task in planned],
        "rows": list(rows),
        "not_reached": [task.key for task in planned if task.key not in known],
    }
    return {"dry_run": dry_run, "sections": {"training": part}}
