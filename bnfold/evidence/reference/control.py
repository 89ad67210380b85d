"""If, Loop and Scan: operators that run graphs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir

from bnfold.evidence.reference.arrays import NoKernelError
from bnfold.evidence.reference.call import Call
from bnfold.evidence.reference.sizes import Held

RunGraph: TypeAlias = Callable[[ir.Graph, Sequence[Any]], list[Any]]
"""Evaluates a subgraph with values for its inputs."""


_TURNS: Final = 2
"""A Loop that is made to run runs so often, for what one turn hands the next."""


@dataclass(slots=True)
class _Forced:
    """Which branches are taken, whatever the data say.

    Attributes:
        pattern: 0 for each first branch, 1 for each second; others mix them.
        met: How many If nodes were met in one evaluation: they are told apart by their order.
        hangs: Whether a value hangs on data, as far as anybody asked.
    """

    pattern: int
    met: int = 0
    hangs: dict[ir.Value, bool] = field(default_factory=dict)

    def takes(self) -> bool:
        """Return what the next condition is."""
        self.met += 1
        if self.pattern < 2:
            return self.pattern == 0
        return bool(zlib.crc32(f"{self.pattern} {self.met}".encode()) >> 7 & 1)


_forced: ContextVar[_Forced | None] = ContextVar("forced", default=None)


@contextmanager
def forced_branches(pattern: int) -> Iterator[None]:
    """Take branches by a pattern wherever data decide, and run each Loop a few turns.

    Data that are drawn may take one branch of an If only, and what the other one computes is
    never seen. Conditions of constants and of sizes stay what they are.

    Args:
        pattern: 0 for the first branch everywhere, 1 for the second; others mix them.
    """
    token = _forced.set(_Forced(pattern))
    try:
        yield
    finally:
        _forced.reset(token)


def begin_evaluation() -> None:
    """Count If nodes from the first on: both models meet them in one order."""
    forced = _forced.get()
    if forced is not None:
        forced.met = 0


def _is_decided_by_data(value: ir.Value | None, known: dict[ir.Value, bool]) -> bool:
    """Return whether a value hangs on numbers that a caller gives, not on sizes alone."""
    waiting, seen = [value], set()
    while waiting:
        here = waiting.pop()
        if here is None or here in seen or here.const_value is not None:
            continue
        seen.add(here)
        if known.get(here):
            return True
        node = here.producer()
        if node is None:
            known[here] = True  # an input of a graph
            return True
        if node.op_type not in ("Shape", "Size", "Constant"):
            waiting.extend(node.inputs)
    return False


def run_if(call: Call, run: RunGraph) -> list[Any]:
    """The branch that the condition names."""
    decided, forced = bool(np.all(call.x[0])), _forced.get()
    if forced is not None and _is_decided_by_data(call.node.inputs[0], forced.hangs):
        decided = forced.takes()
    branch = "then_branch" if decided else "else_branch"
    return run(call.node.attributes[branch].as_graph(), [])


def _least_turns(node: ir.Node, body: ir.Graph) -> int:
    """Return how many turns a Loop is made to run whose end hangs on data."""
    forced = _forced.get()
    if forced is None or forced.pattern == 1:
        return 0
    begins = node.inputs[1] if len(node.inputs) > 1 else None
    if begins is not None and not _is_decided_by_data(begins, forced.hangs):
        return 0
    return _TURNS if _is_decided_by_data(body.outputs[0], forced.hangs) else 1


def run_loop(call: Call, run: RunGraph) -> list[Any]:
    """Repeat the body until the count or its own condition ends it."""
    body = call.node.attributes["body"].as_graph()
    limit, go, carried = call.maybe(0), call.maybe(1), list(call.x[2:])
    go = np.ones((), bool) if go is None else go
    scans: list[list[Any]] = [[] for _ in body.outputs[1 + len(carried) :]]
    turn, held, least = 0, Held(call), _least_turns(call.node, body)
    while (limit is None or turn < int(np.reshape(limit, ()))) and (
        np.all(go) or turn < least
    ):
        out = run(body, [np.array(turn, np.int64), go, *carried])
        go, carried = out[0], out[1 : 1 + len(carried)]
        for rows, value in zip(scans, out[1 + len(carried) :], strict=True):
            rows.append(value)
        held.add(out[1 + len(carried) :])
        turn += 1
    declared = body.outputs[1 + len(carried) :]
    return [*carried, *(_stacked(r, v, 0) for r, v in zip(scans, declared, strict=True))]


def run_scan(call: Call, run: RunGraph) -> list[Any]:
    """Scan of version 9 and later: over any axes, in any direction."""
    if call.opset < 9:
        raise call.no_kernel("before version 9 it has a batch axis")
    body = call.node.attributes["body"].as_graph()
    count = call.integer("num_scan_inputs", 0)
    kept = len(call.x) - count
    carried, scanned = list(call.x[:kept]), call.x[kept:]
    axes = call.integers("scan_input_axes", (0,) * count)
    backwards = call.integers("scan_input_directions", (0,) * count)
    steps = [
        _turned(np.moveaxis(x, axis, 0), back)
        for x, axis, back in zip(scanned, axes, backwards, strict=True)
    ]
    declared = body.outputs[kept:]
    stacks: list[list[Any]] = [[] for _ in declared]
    held = Held(call)
    for turn in zip(*steps, strict=True):
        out = run(body, [*carried, *turn])
        carried = out[:kept]
        for rows, value in zip(stacks, out[kept:], strict=True):
            rows.append(value)
        held.add(out[kept:])
    out_axes = call.integers("scan_output_axes", (0,) * len(stacks))
    out_back = call.integers("scan_output_directions", (0,) * len(stacks))
    entries = zip(stacks, declared, out_axes, out_back, strict=True)
    ends = [_stacked(_turned(rows, back), v, axis) for rows, v, axis, back in entries]
    return [*carried, *ends]


def _turned(rows: Any, backwards: int) -> Any:
    return rows[::-1] if backwards else rows


def _stacked(rows: Sequence[Any], declared: ir.Value, axis: int) -> Any:
    if len(rows):
        return np.stack(rows, axis)
    dims = () if declared.shape is None else declared.shape.dims
    sizes = [0, *(d if isinstance(d, int) else 0 for d in dims)]
    return np.zeros(sizes, np.float64 if declared.dtype is None else declared.dtype.numpy())


_CONTROL: Final[dict[str, Callable[[Call, RunGraph], list[Any]]]] = {
    "If": run_if,
    "Loop": run_loop,
    "Scan": run_scan,
}


def run_control(call: Call, run: RunGraph) -> list[Any]:
    """Run an operator that has subgraphs.

    Raises:
        NoKernelError: If it is none of If, Loop and Scan.
    """
    if call.node.domain not in ("", "ai.onnx") or call.node.op_type not in _CONTROL:
        raise NoKernelError(f"{call.node.op_type}: its subgraphs are not understood")
    return _CONTROL[call.node.op_type](call, run)
