# ruff: noqa: E501  # tables of faults, one line each, are read more easily than broken ones
"""Small faults in the source of the kernels and of their launches, each with a name.

A mutant is other source text, loaded beside the real modules; nothing on disk changes. Faults
that only a device could show (a missing barrier, 32 bits for a place) have tests of their own
in `test_ahead_of_time.py` and `test_far_tiles.py`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final
from unittest import mock

from bnfold.train import autograd, kernels

PACKAGE: Final = "bnfold.train.kernels"
FILES: Final = (
    "elementwise",
    "forward",
    "backward",
    "plans",
    "launch",
)  # each uses those before it


@dataclass(frozen=True)
class Mutant:
    """A fault: in one file, `old` becomes `new`, at one place or at all `places`."""

    name: str
    file: str
    old: str
    new: str
    places: int = 1  # where `old` occurs
    only: int | None = None  # the place that changes; all of them without it

    def source(self) -> str:
        """Return the source with the fault; the text must be there as often as it says."""
        path = Path(kernels.__file__).with_name(f"{self.file}.py")
        pieces = path.read_text(encoding="utf-8").split(self.old)
        if len(pieces) != self.places + 1:
            raise ValueError(f"{self.name}: {self.old!r} is there {len(pieces) - 1} times")
        joints = [
            self.new if self.only in (None, place) else self.old
            for place in range(self.places)
        ]
        return pieces[0] + "".join(
            joint + piece for joint, piece in zip(joints, pieces[1:], strict=True)
        )


@contextmanager
def at_work(mutant: Mutant, folder: Path) -> Iterator[ModuleType]:
    """Let a mutant do what the kernels do; yield its module of launches."""
    with ExitStack() as stack:
        launch = sys.modules[f"{PACKAGE}.launch"]
        for name in FILES[FILES.index(mutant.file) :]:
            launch = stack.enter_context(loaded(mutant, name, folder))
        stack.enter_context(mock.patch.object(autograd, "launcher", return_value=launch))
        yield launch


@contextmanager
def loaded(mutant: Mutant, name: str, folder: Path) -> Iterator[ModuleType]:
    """Load a module again, with the fault if it is the one that has it, in its place.

    No other module may leave `sys.modules` with it: torch imports some when it needs them.
    """
    path, full = Path(kernels.__file__).with_name(f"{name}.py"), f"{PACKAGE}.{name}"
    if name == mutant.file:
        path = folder / f"{name}.py"
        path.write_text(mutant.source(), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(full, path)
    assert spec is not None
    assert spec.loader is not None
    module, original = importlib.util.module_from_spec(spec), sys.modules[full]
    sys.modules[full] = module
    try:
        spec.loader.exec_module(module)
        with mock.patch.object(kernels, name, module):
            yield module
    finally:
        sys.modules[full] = original


def of(
    file: str, *faults: tuple[str, str, str] | tuple[str, str, str, int, int | None]
) -> list[Mutant]:
    """Name the faults of one file."""
    return [Mutant(fault[0], file, *fault[1:]) for fault in faults]


ELEMENTWISE = of(
    "elementwise",
    ("relu lets zero pass", "slope = tl.where(pre <= 0.0, 0.0, 1.0)", "slope = tl.where(pre < 0.0, 0.0, 1.0)"),
    ("a bit lets zero pass", "stopped = pre <= 0.0", "stopped = pre < 0.0"),
    ("a bit stops NaN", "stopped = pre <= 0.0", "stopped = (pre > 0.0) == 0"),
    ("relu6 passes above six", "stopped |= pre >= 6.0", "stopped |= pre >= 60.0"),
    ("relu6 slopes above six", "tl.where(pre >= 6.0, 0.0, 1.0)", "tl.where(pre >= 60.0, 0.0, 1.0)"),
    ("leaky_relu stops by bits", "slope = tl.where(passed, 1.0, negative_slope)", "slope = tl.where(passed, 1.0, 0.0)"),
    ("leaky_relu stops", "slope = tl.where(pre <= 0.0, negative_slope, 1.0)", "slope = tl.where(pre <= 0.0, 0.0, 1.0)"),
    ("silu's slope without its second term", "gate * (1.0 + pre * (1.0 - gate))", "gate"),
    ("weight and bias swapped", "tl.fma(normal, weight, bias)", "tl.fma(normal, bias, weight)"),
    ("weight absent is zero", "values = tl.full(offsets.shape, otherwise, tl.float32)", "values = tl.full(offsets.shape, 0.0, tl.float32)"),
    ("bits packed shifted by one", "eights << tl.arange(0, 8)[None, None, :]", "eights << ((tl.arange(0, 8) + 1) % 8)[None, None, :]"),
    ("bits unpacked from the other end", ">> tl.arange(0, 8)[None, None, :]", ">> (7 - tl.arange(0, 8))[None, None, :]"),
    ("no Chan term", " + apart * apart * (count * share)", ""),
    ("merged to the middle", "mean + apart * share", "mean + apart * 0.5"),
    ("share of the wrong side", "share = other_count / tl.maximum", "share = count / tl.maximum"),
    ("biased running variance", "share * (var * unbias)", "share * var"),
    ("momentum the other way round", "(1.0 - share) * old_mean + share * mean", "share * old_mean + (1.0 - share) * mean"),
    ("running variance not kept", "(1.0 - share) * old_var", "0.0 * old_var"),
    ("every program counts", "if tl.program_id(0) == 0:", "if tl.program_id(0) >= 0:"),
    ("nobody counts", "tl.load(counter_ptr) + 1", "tl.load(counter_ptr)"),
    ("eps forgotten", "tl.sqrt_rn(var + eps)", "tl.sqrt_rn(var + 0.0 * eps)"),
    ("channels of planes not counted around", "else c % channels", "else tl.minimum(c, channels - 1)"),
)  # fmt: skip
FORWARD = of(
    "forward",
    ("no pivot in rows", "pivot = tl.load(x_ptr + c, mask=has_c, other=0.0).to(tl.float32)", "pivot = tl.load(x_ptr + c, mask=has_c, other=0.0).to(tl.float32) * 0.0", 2, 1),
    ("no pivot in planes", "pivot = tl.load(x_ptr + c.to(tl.int64) * size).to(tl.float32)", "pivot = tl.load(x_ptr + c.to(tl.int64) * size).to(tl.float32) * 0.0", 2, 1),
    ("pivot not added again", "centre += pivot.to(tl.float32)", "centre += 0.0 * pivot.to(tl.float32)"),
    ("pivot of the first channel", "c.to(tl.int64) * pivot_stride", "c.to(tl.int64) * 0 * pivot_stride"),
    ("last rows dropped", "if start < rows:", "if start < 0:"),
    ("one full tile dropped", "first + stride - 1, 0)", "first + stride - 2, 0)"),
    ("rows that are not there counted", "counts += has_r.to(tl.float32)", "counts += 1.0"),
    ("values that are not there not zero", "m2s = tl.where(last, tl.fma(before, shifted - means, m2s), m2s)", "m2s = tl.fma(shifted, shifted - means, m2s)"),
    ("every place weighs the same", "means * counts[:, None]", "means * seen"),
    ("a row too many in the masks", "has_r = r < rows - start\n        inside", "has_r = r <= rows - start\n        inside"),
    ("a channel too many in the masks", "has_c = c < channels\n    mean", "has_c = c <= channels\n    mean"),
    ("a channel too few", "has_c = c < channels\n    pivot", "has_c = c < channels - 1\n    pivot", 2, 0),
    ("a byte too many", "mask=has_r[:, None] & (b < length)[None, :]", "mask=has_r[:, None] & (b <= length)[None, :]"),
    ("a value too many on planes", "(s < size - first_s)[None, :]", "(s <= size - first_s)[None, :]", 2, 0),
    ("an image too many", "tl.minimum(tl.maximum(images - first_n, 0), BLOCK_N)", "tl.minimum(images - first_n + 1, BLOCK_N)"),
    ("a plane's end not seen", "left_s = tl.minimum(size - first_s, BLOCK_S)", "left_s = BLOCK_S + 0 * first_s"),
    ("no residual in rows", "pre += residual.to(tl.float32)", "pre += 0.0 * residual.to(tl.float32)", 3, 0),
    ("no residual in planes", "pre += residual.to(tl.float32)", "pre += 0.0 * residual.to(tl.float32)", 3, 1),
    ("no residual in planes alone", "pre += residual.to(tl.float32)", "pre += 0.0 * residual.to(tl.float32)", 3, 2),
    ("steps off by one", "    for step in range(steps):\n        start", "    for step in range(steps - 1):\n        start"),
    ("a split not merged", "inside = (k < splits)", "inside = (k < splits - 1)"),
    ("a split too many merged", "inside = (k < splits)", "inside = (k <= splits)"),
    ("splits merged without their distance", "m2 + count * apart * apart", "m2 + 0.0 * apart"),
    ("backwards, the last program left out", "program = tl.num_programs(0) - 1 - tl.program_id(0)", "program = tl.maximum(tl.num_programs(0) - 2 - tl.program_id(0), 0)", 2, 0),
    ("backwards, the last planes left out", "program = tl.num_programs(0) - 1 - tl.program_id(0)", "program = tl.maximum(tl.num_programs(0) - 2 - tl.program_id(0), 0)", 2, 1),
    ("cumulative share of the batch before", "share = 1.0 / count.to(tl.float32)", "share = 1.0 / (count - 1).to(tl.float32)"),
    ("only the first 1024 channels run", "for start in range(0, channels, BLOCK_C)", "for start in range(0, 1, BLOCK_C)"),
    ("bits of planes one byte on", "first_s // 8)\n            tl.store", "first_s // 8 + (first_s > 0))\n            tl.store"),
)  # fmt: skip
BACKWARD = of(
    "backward",
    ("gradients of weight and bias swapped", "tl.store(dbias_ptr + c, sum_inner, mask=has_c)\n    tl.store(dweight_ptr + c, sum_product", "tl.store(dbias_ptr + c, sum_product, mask=has_c)\n    tl.store(dweight_ptr + c, sum_inner", 2, None),
    ("no residual in the slope of rows", "pre += residual.to(tl.float32)", "pre += 0.0 * residual.to(tl.float32)", 2, 0),
    ("no residual in the slope of planes", "pre += residual.to(tl.float32)", "pre += 0.0 * residual.to(tl.float32)", 2, 1),
    ("frozen dx of rows without rstd", "dx = inner * (weight * rstd)[None, :]", "dx = inner * (weight + 0.0 * rstd)[None, :]"),
    ("frozen dx of planes without rstd", "dx = inner * (weight * rstd)\n", "dx = inner * weight\n"),
    ("dx without weight", "dx = centred * (weight * rstd)[None, :]", "dx = centred * rstd[None, :]"),
    ("no mean product", " - normal * mean_product[None, :]", ""),
    ("no mean", "inner - mean_inner[:, None]", "inner"),
    ("no mean of planes alone", "centred = inner - mean_inner - normal", "centred = inner - normal"),
    ("means of rows alone swapped", "inner_ptr, x_ptr, dx_ptr, sum_inner * share, sum_product * share, mean, rstd,\n            weight, bias, first", "inner_ptr, x_ptr, dx_ptr, sum_product * share, sum_inner * share, mean, rstd,\n            weight, bias, first"),
    ("sums of rows alone without their share", "dy_ptr, x_ptr, dx_ptr, sum_inner * share", "dy_ptr, x_ptr, dx_ptr, sum_inner", 2, 0),
    ("sums of planes alone without their share", "dy_ptr, x_ptr, dx_ptr, sum_inner * share", "dy_ptr, x_ptr, dx_ptr, sum_inner", 2, 1),
    ("slope applied twice", "negative_slope, None,\n            BLOCK_R,", "negative_slope, ACTIVATION,\n            BLOCK_R,"),
    ("inner beside its place", "tl.store(inner_ptr + base + offsets, stored", "tl.store(inner_ptr + base + offsets, 2.0 * stored", 2, 0),
    ("a split not added", "inside = (k < splits)", "inside = (k < splits - 1)"),
    ("a step not added", "    for step in range(steps):\n        start = (first", "    for step in range(steps - 1):\n        start = (first"),
    ("planes do not take turns", "tile = first + step * stride", "tile = first + step"),
    ("bits of another row", "at = bits_ptr + start * length + bytes_at", "at = bits_ptr + (start // 2) * length + bytes_at"),
    ("bits of another plane", "at = bits_ptr + (plane * length + first_s // 8)", "at = bits_ptr + (plane * length)"),
    ("a value too many on planes", "(s < size - first_s)[None, :]", "(s <= size - first_s)[None, :]", 3, 0),
    ("a row too many in dx", "inside = (r < rows - start)", "inside = (r <= rows - start)"),
)  # fmt: skip
PLANS = of(
    "plans",
    ("unbiased by n", "count / max(1, count - 1)", "count / max(1, count)"),
    (
        "splits of the other kernel",
        'self.split("statistics").splits, self',
        'self.split("sums").splits, self',
    ),
)
LAUNCH = of(
    "launch",
    ("unbiased by n, cumulative", "count / max(1, count - 1)", "count / max(1, count)"),
    ("share of n - 1", "share = 1.0 / plan.layout.per_channel", "share = 1.0 / (plan.layout.per_channel - 1)", 2, 0),
    ("share of n - 1, alone", "share = 1.0 / plan.layout.per_channel", "share = 1.0 / (plan.layout.per_channel - 1)", 2, 1),
    ("pivot stride of rows", "pivot_stride = 1 if isinstance(layout, Rows) else layout.size", "pivot_stride = 1"),
    ("a tile of the last channels missing", "-(-channels // block),", "channels // block,"),
    ("only 1024 channels inverted", "-(-channels // _VECTOR),", "1,"),
    ("gradient's activation applied again", "left = activation.name if inner is None else None", "left = activation.name"),
    ("inner not passed on", "dy if inner is None else inner, x, dx", "dy, x, dx"),
    ("strides of dy not looked at", "dy = laid_out_like(dy, x)\n    if residual", "if residual", 3, 0),
    ("strides of dy not looked at, frozen", "dy = laid_out_like(dy, x)\n    if residual", "if residual", 3, 2),
    ("strides of the residual not looked at", "        residual = laid_out_like(residual, x)\n    cumulative", "        residual = residual + 0\n    cumulative"),
    ("bits never kept", "if residual is None or not activation.has_two_slopes:", "if residual is not None or not activation.has_two_slopes:"),
    ("bits too few", "plan_of(x).layout.mask_bytes", "plan_of(x).layout.mask_bytes - 1"),
    ("one grid step missing", "(-(-downwards // steps) * across,)", "(max(1, downwards // steps) * across,)"),
    ("planes rounded down", "(-(-planes // tile.lines) * blocks,)", "(max(1, planes // tile.lines) * blocks,)"),
    ("momentum zero", "0.0 if running is None or running.momentum is None else running.momentum", "0.0"),
)  # fmt: skip
MUTANTS: Final = (*ELEMENTWISE, *FORWARD, *BACKWARD, *PLANS, *LAUNCH)
