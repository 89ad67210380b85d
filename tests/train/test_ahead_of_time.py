"""Kernels compile for GPUs that are not here: no spills, and 128 bits at a time."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", reason="triton is not installed: nothing to compile with")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter does not compile", allow_module_level=True)

import triton  # after the skip
from triton.backends.compiler import GPUTarget  # after the skip
from triton.compiler import ASTSource  # after the skip

from benchmarks import kernel_registers  # after the skip
from bnfold.train.kernels import backward, forward  # after the skip

if not kernel_registers.DISASSEMBLER.exists():
    pytest.skip("this triton brings no cuobjdump", allow_module_level=True)

SIZES = ("rows", "channels", "images", "size", "planes", "steps", "blocks", "splits")
CONSTANTS = {"BLOCK_R": 64, "BLOCK_N": 64, "BLOCK_P": 64, "SPLITS": 8, "CUMULATIVE": True}
CONSTANTS |= {"ACTIVATION": "relu", "BLOCK_C": 16, "BLOCK_S": 16}
FUNCTIONS = [
    kernel
    for module in (forward, backward)
    for kernel in vars(module).values()
    if isinstance(kernel, triton.JITFunction) and kernel.__module__ == module.__name__
]
# The others are parts that these call.
KERNELS = [
    kernel
    for kernel in FUNCTIONS
    if not any(f" {kernel.__name__}(" in other.src.partition(":\n")[2] for other in FUNCTIONS)
]
VARIANTS = list(kernel_registers.variants())
# Their work is split, and they are of a ResNet.
SPLIT = [
    variant
    for variant in VARIANTS
    if variant.kernel in ("statistics", "sums") and variant.activation in (None, "relu")
]


def thorough_but_first(variants):
    """Of each kernel the first, and one of each other type and slope, are in `make test`."""
    seen, found = set(), []
    for variant in variants:
        kinds = {variant.function.__name__, variant.storage, variant.activation}
        marks = [pytest.mark.thorough] if kinds <= seen else []
        found.append(pytest.param(variant, id=variant.title, marks=marks))
        seen |= kinds
    return found


@pytest.mark.parametrize("variant", thorough_but_first(VARIANTS))
def test_a_kernel_fits_registers_and_uses_wide_access(variant):
    used = kernel_registers.compile_ahead(variant, 90)
    faults = faults_of(variant, used, 90)
    if variant in SPLIT:  # here, for to compile takes seconds
        faults += faults_of_a_wave(variant, used)
    assert not faults, "\n".join(faults)


@pytest.mark.thorough
@pytest.mark.parametrize("capability", set(kernel_registers.CAPABILITIES) - {90})
def test_kernels_fit_registers_of_other_devices(capability):
    faults = []
    for variant in VARIANTS:
        used = kernel_registers.compile_ahead(variant, capability)
        faults += faults_of(variant, used, capability)
    assert not faults, "\n".join(faults)


def faults_of(variant, used, capability):
    faults = []
    loads, stores = variant.wide(capability)
    if used.spills or used.stack_bytes or used.registers > 128:
        faults.append(f"{variant.title}: spills or fills the registers: {used}")
    per_value = variant.per_value(used, capability)
    if variant.activation in (None, "relu") and per_value > 0.7 * variant.affordable:
        faults.append(f"{variant.title}: takes longer than memory: {per_value:.1f}")
    if used.wide_loads < loads or used.wide_stores < stores:
        faults.append(f"{variant.title}: {loads} loads, {stores} stores needed: {used}")
    return faults


def faults_of_a_wave(variant, used):
    """What the splits are chosen by: a last wave of a few keeps all others waiting."""
    launch = variant.launch(90)
    by_warp = -(-used.registers // 8) * 8 * 32
    if by_warp * launch.warps * launch.programs > 2**16:
        return [f"{variant.title}: programs of one wave do not fit: {used}"]
    in_flight = 32 * launch.warps * launch.programs * launch.elements // (32 * launch.warps)
    in_flight *= kernel_registers.ITEMSIZE[variant.storage] * variant.reads
    return [] if in_flight >= 24 * 1024 else [f"{variant.title}: {in_flight} bytes on the way"]


def type_of(name, size):
    """The type of an argument; a size of 1 is a constant to triton, a huge one has 64 bits."""
    if name == "counter_ptr":
        return "*i64"
    if name == "bits_ptr":
        return "*u8"
    if name.endswith("_ptr"):
        return "*fp16" if name[:-4] in ("x", "y", "dy", "dx", "residual", "inner") else "*fp32"
    if name in SIZES or name == "pivot_stride":
        return size
    return "fp32"


@pytest.mark.parametrize("size", ["constexpr", "i64"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.__name__)
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")  # launches set it
def test_kernels_compile_for_sizes_of_one_and_for_huge_ones(kernel, size):
    signature = {
        name: "constexpr" if name in CONSTANTS else type_of(name, size)
        for name in kernel.arg_names
    }
    constants = {
        n: CONSTANTS.get(n, 1) for n, kind in signature.items() if kind == "constexpr"
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    triton.compile(source, target=GPUTarget("cuda", 90, 32))


@pytest.mark.parametrize("side", ["rows", "planes"])
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")  # launches set it
def test_a_thread_waits_for_what_another_has_stored(side):
    """The gradient reads `inner` of the same program; the interpreter has one thread."""
    kernel = getattr(backward, f"{side}_backward_alone")
    barriers = []
    for absent in ("residual_ptr", "inner_ptr"):
        signature = {
            name: "constexpr" if name in (*CONSTANTS, absent) else type_of(name, "i32")
            for name in kernel.arg_names
        }
        constants = {
            n: CONSTANTS.get(n) for n, kind in signature.items() if kind == "constexpr"
        }
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        barriers.append(compiled.asm["ttir"].count("barrier"))
    assert barriers == [1, 0]
