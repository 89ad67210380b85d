"""Documents of benchmarks that nobody ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bnfold.records import (
    AffineNode,
    Arm,
    BenchReport,
    BenchSettings,
    Case,
    Comparison,
    Ending,
    Latency,
    Machine,
    RunGraph,
    Series,
    Speed,
    Start,
    Turn,
)
from bnfold.report.to_json import bench_document

_NAN = float("nan")
_NAMES = ("original", "again", "folded", "unfused")


def bench(
    ratio: float = 0.8,
    ending: Ending = Ending.PRECISE,
    batches: Mapping[int, int] | None = None,
) -> BenchReport:
    """A benchmark of three arms and a null run; ``batches`` tells how many processes each had.

    Where there was none, the case failed.
    """
    batches = batches or {1: 6}
    arms = tuple(
        Arm(name, name, "m.onnx", 100, "all", (), "CPUExecutionProvider", {}, name == "again")
        for name in _NAMES
    )
    graphs = (
        RunGraph(
            "original", {"Conv": 1, "Mul": 2}, {"Conv": 1, "Mul": 2}, (_affine(),), {}, ()
        ),
        RunGraph("folded", {"Conv": 1}, {"Conv": 1}, (), {}, ()),
    )
    machine = Machine("Linux", "a CPU", 2, None, "", {"python": "3.12"}, 0.1, 0.1, None)
    return BenchReport(
        arms=arms,
        cases=tuple(
            _case(batch, processes, ratio, ending) if processes else _failed(batch)
            for batch, processes in batches.items()
        ),
        starts=tuple(
            _start(arm, ms, batch)
            for batch in batches
            for arm, ms in (("original", 20.0), ("folded", 10.0))
        ),
        graphs=graphs,
        why=(),
        machine=machine,
        settings=BenchSettings(1, "model", False, 0.01, 60.0, 0.95, 0),  # noqa: FBT003  no CUDA graph
        warnings=("the machine was busy",),
    )


def document(**changed: Any) -> dict[str, Any]:
    """The same as a document."""
    return bench_document(bench(**changed))


def _case(batch: int, processes: int, ratio: float, ending: Ending) -> Case:
    return Case(
        batch=batch,
        shapes={"x": (batch, 3)},
        latencies=tuple(Latency(name, 40, 2.0, 2.1, 2.2, 2.0, 500.0) for name in _NAMES),
        comparisons=(
            _comparison("again", 1.001, Speed.NO_DIFFERENCE),
            _comparison("folded", ratio, Speed.FASTER),
            Comparison(
                "unfused", "original", 1.2, _NAN, _NAN, 0.95, Speed.NOT_MEASURED, _NAN, 2, 8
            ),
        ),
        series=tuple(
            Series(name, process, 5, settled=True, turns=(Turn(0, 0, (1000, 1001)),))
            for process in range(processes)
            for name in _NAMES
        ),
        ending=ending,
        outputs_differ={"folded": 1e-7},
        failures={},
    )


def _failed(batch: int) -> Case:
    why = {"original": "out of memory"}
    return Case(batch, {"x": (batch, 3)}, (), (), (), Ending.FAILED, {}, why)


def _comparison(arm: str, ratio: float, verdict: Speed) -> Comparison:
    return Comparison(
        arm, "original", ratio, ratio - 0.01, ratio + 0.01, 0.95, verdict, 0.013, 6, 60
    )


def _affine() -> AffineNode:
    return AffineNode("m", "Mul", "channel", 0.25)


def _start(arm: str, ms: float, batch: int) -> Start:
    return Start(arm, batch, ms, 1.0, None, None, None)
