"""Read the profile that ONNX Runtime writes: time by node, and which provider ran it."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

_ENDING: Final = "_kernel_time"
_HOLDERS: Final = frozenset({"If", "Loop", "Scan"})
"""Their time is that of the nodes inside them, which are counted themselves."""


@dataclass(frozen=True, slots=True)
class NodeTime:
    """One node of the graph that ran.

    Attributes:
        name: Its name.
        kind: Its operator.
        provider: What ran it.
        ms: Time in one call, in milliseconds: the median over calls.
    """

    name: str
    kind: str
    provider: str
    ms: float


def read_profile(path: Path) -> tuple[NodeTime, ...]:
    """Read the times of all nodes; a node that runs several times in a call counts as often.

    The first call is left out: it allocates.
    """
    events = json.loads(path.read_text(encoding="utf-8"))
    spans: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for event in events:
        if _is_kernel(event):
            told = event["args"]
            name = event["name"].removesuffix(_ENDING)
            key = (told.get("node_index", ""), name, told["op_name"], told.get("provider", ""))
            spans[key].append(event["dur"])
    calls = sum(event.get("name") == "model_run" for event in events) or 1
    return tuple(
        NodeTime(name, kind, provider, _per_call(times, calls))
        for (_, name, kind, provider), times in spans.items()
    )


def _is_kernel(event: dict[str, Any]) -> bool:
    told = event.get("args", {})
    is_node = event.get("cat") == "Node" and event.get("name", "").endswith(_ENDING)
    return is_node and "op_name" in told and told["op_name"] not in _HOLDERS


def _per_call(times_us: list[float], calls: int) -> float:
    """The median over calls of the time in a call, in milliseconds."""
    rounds, rest = divmod(len(times_us), calls)
    if rest or rounds == 0:
        return float(np.sum(times_us)) / calls / 1e3
    by_call = np.asarray(times_us, np.float64).reshape(calls, rounds).sum(axis=1)
    return float(np.median(by_call[1:] if calls > 1 else by_call)) / 1e3
