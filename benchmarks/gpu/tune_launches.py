"""Fill the table of launch configurations on a GPU: what every kernel likes on every shape.

    python benchmarks/gpu/run_all.py --only tune --minutes 8 [--install-launches]

For each kernel on each tensor of a ResNet-50 (large batches first, bfloat16 channels_last
before all others) one setting after another is varied, the candidates taking turns, and what
is faster by more than noise is kept. The table is written after every tensor, so that whatever
ends the run costs the tensor under way: beside the results, as `….launches.json`, and with
`--install-launches` over the package's own, for sections that come after this one.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Final

import torch
import triton

from benchmarks import no_device
from benchmarks.arms import write_whole
from benchmarks.gpu.kernel_bench import Bench, Point, bench_of
from benchmarks.gpu.record import Context
from bnfold.train.kernels import tiles
from bnfold.train.kernels.tiles import Entry, Kernel, Launch, Side, Table

SECTION: Final = "tune"
_LEAST_S: Final = 15.0  # a tensor that has less is left out, and said to be
_SWEEPS: Final = 2
_WORTH: Final = 0.985  # of the time of what is in use: less is no noise
_ALONE_WORTH: Final = (
    1.05  # one launch in place of three is worth that much of a device's time
)
_MOST_TILES_ALONE: Final = 128
_PER_THREAD: Final = (4, 64)  # values: fewer waste threads, more spill
_CHOICES: Final[dict[str, tuple[int, ...]]] = {
    "elements": (1024, 2048, 4096, 8192),
    "row_bytes": (64, 128, 256, 512),
    "warps": (4, 8, 16),
    "programs": (2, 4, 8, 16, 32),
    "steps": (1, 2, 4, 8, 16),
}
_LAYERS: Final = ((64, 112), (256, 56), (512, 28), (2048, 7))
Timer = Callable[[Sequence[Launch]], Sequence[float]]


def points(*, dry_run: bool) -> Iterator[Point]:
    """Yield what matters most first: time may end before the list does."""
    if dry_run:
        for by_rows in (True, False):
            yield Point(2, 16, 8, torch.float32, by_rows)
        return
    for dtype, by_rows in itertools.product((torch.bfloat16, torch.float32), (True, False)):
        for images, (channels, side_length) in itertools.product((256, 16), _LAYERS):
            yield Point(images, channels, side_length, dtype, by_rows)


def fields_of(kernel: Kernel, side: Side) -> tuple[str, ...]:
    """Return which settings a kernel's speed depends on."""
    found: tuple[str, ...] = ("elements", "warps")
    if side == "rows":
        found += ("row_bytes",)
    if kernel in ("statistics", "sums"):
        found += ("programs",)
    elif kernel in ("normalise", "gradient") and side == "rows":
        found += ("steps", "programs")
    return found


def is_sensible(candidate: Launch, itemsize: int) -> bool:
    """Return whether a tile is a tile, and fits the threads that share it."""
    fewest, most = _PER_THREAD
    per_thread = candidate.elements / (32 * candidate.warps)
    return (
        fewest <= per_thread <= most
        and tiles.MIN_LENGTH <= candidate.length_of_rows(itemsize) <= candidate.elements
    )


def best_of(
    start: Launch, fields: Sequence[str], itemsize: int, times: Timer
) -> tuple[Launch, float]:
    """Vary one setting after another; return what was fastest, and its time.

    Args:
        start: Where to begin.
        fields: The settings to vary.
        itemsize: Bytes of a value.
        times: Measures candidates beside each other.
    """
    best, best_ms = start, float("nan")
    for _ in range(_SWEEPS):
        before = best
        for name in fields:
            others = [replace(best, **{name: value}) for value in _CHOICES[name]]
            others = [c for c in others if c != best and is_sensible(c, itemsize)]
            best_ms, *others_ms = times([best, *others])
            fastest = min(range(len(others)), key=others_ms.__getitem__, default=None)
            if fastest is not None and others_ms[fastest] < _WORTH * best_ms:
                best, best_ms = others[fastest], others_ms[fastest]
        if best == before:
            break
    return best, best_ms


def tune(bench: Bench, point: Point, known: Table) -> list[Entry]:
    """Return the best launches for every kernel on one tensor."""
    sets = bench.sets(point)
    itemsize = point.dtype.itemsize
    found: dict[Kernel, Launch] = {}
    for kernel in tiles.KERNELS:
        start = known.launch_of(kernel, bench.capability, point.layout, itemsize)
        if kernel in ("forward_alone", "backward_alone") and not may_work_alone(point, start):
            found[kernel] = replace(start, steps=0)
            continue
        times = bench.times(kernel, point, sets)
        found[kernel], _ = best_of(start, fields_of(kernel, point.side), itemsize, times)
    alone = {k for k in found if k.endswith("alone") and found[k].steps}
    if alone:
        chosen = tiles.uniform(found, bench.capability)
        several, several_back, one, one_back = bench.whole_ms(point, chosen, sets)
        wins = {
            "forward_alone": one < _ALONE_WORTH * several,
            "backward_alone": one_back < _ALONE_WORTH * several_back,
        }
        for kernel in alone:
            steps = tiles_alone(point, found[kernel]) if wins[kernel] else 0
            found[kernel] = replace(found[kernel], steps=steps)
    return [point.entry(kernel, best) for kernel, best in found.items()]


def tiles_alone(point: Point, candidate: Launch) -> int:
    """Return how many tiles one program has if it does everything for its channels."""
    layout = point.layout
    lines = tiles.lines_of(layout, "forward_alone")
    tile = tiles.tile_of(candidate, layout, point.dtype.itemsize, lines)
    return tiles.tiles_of(tile, layout)


def may_work_alone(point: Point, candidate: Launch) -> bool:
    """One launch is worth a try where its programs do not run for ever."""
    return tiles_alone(point, candidate) <= _MOST_TILES_ALONE


def merged(base: Table, capability: int, tuned: Sequence[Entry], source: str) -> Table:
    """Return a table with what was tuned, and what `base` has of what was not.

    An entry that was guessed stays only where nothing of its kernel and layout was tuned.
    """
    kinds = {(entry.kernel, entry.side) for entry in tuned}
    older = [known for known in base.entries if known <= capability]
    guessed = base.entries[max(older, default=min(base.entries))]
    kept = [entry for entry in guessed if (entry.kernel, entry.side) not in kinds]
    entries = {**base.entries, capability: (*tuned, *kept)}
    return Table(entries, {**base.sources, capability: source})


def tune_all(
    bench: Bench, todo: Sequence[Point], context: Context, save: Callable[[Table], None]
) -> None:
    """Tune on one tensor after another until time is over; save after each."""
    part = context.results(SECTION)
    part |= {"points": [], "left_out": []}
    base, table = tiles.packaged(), tiles.packaged()
    tuned: list[Entry] = []
    for point in todo:
        if context.left_s < _LEAST_S:
            part["left_out"].append(point.key)
            continue
        with context.record.step(f"tune {point.key}"):
            tuned += tune(bench, point, table)
            table = merged(base, bench.capability, tuned, source_of(part["device"]))
            save(table)
            part["points"].append(point.key)
        context.record.keep_samples(f"tune {point.key}", {"measured": bench.taken_log()})


def source_of(device: str) -> str:
    """Return how a table came about, in one line."""
    versions = f"torch {torch.__version__}, triton {triton.__version__}"
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"measured on {device}, {versions}, {day}, by benchmarks.gpu.tune_launches"


def run(context: Context) -> None:
    """Tune what there is time for, and write the table."""
    record, options = context.record, context.options
    part = context.results(SECTION)
    part["device"] = record.document["device"]
    file = record.stem.with_name(f"{record.stem.name}.launches.json")
    part["file"] = file.name

    def save(table: Table) -> None:
        write_whole(file, table.text())
        if options.install_launches:
            write_whole(tiles.FILE, table.text())

    dry_run = options.dry_run
    with no_device.compiled_only(keeps_launches=False) if dry_run else nullcontext():
        tune_all(bench_of(dry_run=dry_run), list(points(dry_run=dry_run)), context, save)
