"""What was measured of training, as parts of a page in Markdown."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from benchmarks import arms
from benchmarks.gpu.targets import MISSED, UNDECIDED, worst_error

LAYERS: Final = (
    "layer",
    "MB",
    "torch, ms",
    "compiled, ms",
    "ours, ms",
    "torch / ours",
    "compiled / ours",
    "torch / ours, called",
    "null run",
    "of copy, forward",
    "of copy, backward",
    "peak, MB",
    "error",
)
NETS: Final = (
    "network",
    "arm",
    "step, ms",
    "images/s",
    "over ours",
    "peak, GB",
    "saved, GB",
    "learns the same",
)
TARGETS: Final = ("target", "bound", "verdict", "rows", "lowest", "as called from Python")
_NOTHING: Final = "–"
_NOTES: Final = (
    "Times: median of forward and backward together, the CPU out of the way; inputs come from"
    " memory, not from the cache. Ratios: time of the other over ours, turn by turn, with the"
    " 95 % interval; above 1 ours is faster. “Called”: one call from Python on an idle device."
    " Null run: a second instance of torch's layer over the first. Of copy: time of the fewest"
    " passes over memory at the bandwidth that a copy reached in the same turns, over the time"
    " of ours. Peak: device memory of a step beyond what was held: torch, compiled, ours."
    " Error: the largest of ours against float64, in units of what rounding alone may do;"
    " above 4 it is wrong."
)
_NET_NOTES: Final = (
    "Step: median of forward, backward and SGD with momentum, steps after one another as in a"
    " training loop. Over ours: with the 95 % interval. Peak: device memory of a step beyond"
    " weights and optimizer. Saved: what a step keeps between forward and backward. Learns the"
    " same: losses of the first steps and size of the first gradient are torch's, within what"
    " the type rounds."
)
_LONGEST: Final = 200


def parts(part: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parts of the page, from the section's results."""
    if "planned" not in part:
        return
    yield "## Training"
    planned, missing = len(part["planned"]), len(part["not_reached"])
    yield (
        f"{planned - missing} of {planned} planned rows were reached; a row is a layer, or a"
        " network. The JSON lists the others, and `--resume` gets them."
    )
    yield from _targets(part)
    yield from _layers(part)
    yield from _nets(part)
    yield from _failures(part)


def _targets(part: Mapping[str, Any]) -> Iterator[str]:
    found = part.get("targets", ())
    if not found:
        return
    yield "### Targets"
    yield part["summary"]
    yield arms.markdown_table(TARGETS, [target_cells(one) for one in found])
    lines = [
        f"- {one['target']}: {row['key']}: {row['verdict']}, {figure(row)}"
        + (f" ({row['why']})" if row["why"] else "")
        for one in found
        for row in one["rows"]
        if row["verdict"] in (MISSED, UNDECIDED)
    ]
    yield "\n".join(lines)


def target_cells(target: Mapping[str, Any]) -> tuple[str, ...]:
    """Write the cells of `TARGETS`."""
    bound = _NOTHING if target["bound"] is None else f"{target['bound']:g}"
    lowest = next((row for row in target["rows"] if row["key"] == target["lowest"]), None)
    return (
        target["says"],
        bound,
        target["verdict"],
        _counted(target["counts"]),
        f"{figure(lowest)}, {lowest['key']}" if lowest else _NOTHING,
        _counted(target["called"]),
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or _NOTHING


def figure(found: Mapping[str, Any] | None) -> str:
    """Write a figure with its interval."""
    if found is None or found["value"] is None:
        return _NOTHING
    if found["low"] is None or found["low"] == found["high"]:
        return f"{found['value']:.3f}"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _layers(part: Mapping[str, Any]) -> Iterator[str]:
    """A table for each type and layout."""
    found = [row for row in part["rows"] if row["what"] == "layer"]
    for dtype, channels_last in itertools.product(
        ("bfloat16", "float16", "float32"), (True, False)
    ):
        cells = [
            layer_cells(row)
            for row in found
            if (row["dtype"], row["channels_last"]) == (dtype, channels_last)
        ]
        if cells:
            yield f"### {dtype}, {'channels_last' if channels_last else 'contiguous'}"
            yield arms.markdown_table(LAYERS, cells)
    if found:
        yield _NOTES


def layer_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Write the cells of `LAYERS`."""
    name = f"{row['kind']} {row['batch']}×{row['channels']}×{row['side']}²"
    medians, ratios = row.get("medians_ms", {}), row.get("ratios", {})
    of_copy = row.get("of_copy", {}).get("ours", {})
    return (
        name,
        f"{row['bytes'] / 1e6:.1f}" if "bytes" in row else _NOTHING,
        *(_ms(medians, arm, "step queued") for arm in ("eager", "compiled", "ours")),
        figure(ratios.get("eager / ours", {}).get("step queued")),
        figure(ratios.get("compiled / ours", {}).get("step queued")),
        figure(ratios.get("eager / ours", {}).get("step called")),
        figure(ratios.get("again / eager", {}).get("step queued")),
        figure(of_copy.get("forward")),
        figure(of_copy.get("backward")),
        _peaks(row, 1e6, ("eager", "compiled", "ours")),
        worst_error(row) or _NOTHING,
    )


def _ms(medians: Mapping[str, Any], arm: str, quantity: str) -> str:
    found = medians.get(arm, {}).get(quantity)
    return _NOTHING if found is None else f"{found:.4f}"


def _peaks(row: Mapping[str, Any], unit: float, names: Sequence[str]) -> str:
    found = [row.get("peak_bytes", {}).get(name) for name in names]
    return ", ".join(_NOTHING if one is None else f"{one / unit:.0f}" for one in found)


def _nets(part: Mapping[str, Any]) -> Iterator[str]:
    rows = [row for row in part["rows"] if row["what"] == "net"]
    if rows:
        yield "### Whole training steps"
        yield arms.markdown_table(NETS, [cells for row in rows for cells in net_cells(row)])
        yield _NET_NOTES
        yield "\n".join(_fusions(row) for row in rows if row.get("fusions"))


def _fusions(row: Mapping[str, Any]) -> str:
    found = ", ".join(f"{count} × {what}" for what, count in row["fusions"].items())
    return f"- {row['key']}: `convert` made part of a BatchNorm: {found}."


def net_cells(row: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Write the cells of `NETS`, a row for each arm that ran."""
    agrees = {True: "yes", False: "no", None: _NOTHING}
    for arm, medians in row.get("medians_ms", {}).items():
        yield (
            row["key"],
            arm,
            f"{medians['step']:.2f}",
            f"{row['images_per_s'][arm]:.0f}",
            figure(row["ratios"].get(f"{arm} / ours", {}).get("step")),
            _gb(row["peak_bytes"].get(arm)),
            _gb(row["saved_bytes"].get(arm)),
            agrees[row["agrees"].get(arm)],
        )


def _gb(size: int | None) -> str:
    return _NOTHING if size is None else f"{size / 1e9:.2f}"


def _failures(part: Mapping[str, Any]) -> Iterator[str]:
    """What went wrong or was not to be had; said once, with how many rows it is about."""
    told: dict[str, list[str]] = {}
    for row in part["rows"]:
        for arm, why in {**row.get("absent", {}), **row.get("failures", {})}.items():
            told.setdefault(f"{arm}: {why}", []).append(row["key"])
        if row.get("error"):
            told.setdefault(row["error"], []).append(row["key"])
    lines = [
        f"- {' '.join(why.split())[:_LONGEST]} ({keys[0]}"
        + (f" and {len(keys) - 1} more)" if len(keys) > 1 else ")")
        for why, keys in told.items()
    ]
    if lines:
        yield "### What did not run"
        yield "\n".join(lines)
