"""Kernels compile for GPUs that are not here: no spills, and 128 bits at a time."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", reason="triton is not installed: nothing to compile with")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter does not compile", allow_module_level=True)

from benchmarks import kernel_registers  # after the skip

if not kernel_registers.DISASSEMBLER.exists():
    pytest.skip("this triton brings no cuobjdump", allow_module_level=True)

VARIANTS = list(kernel_registers.variants())


@pytest.mark.parametrize("capability", kernel_registers.CAPABILITIES)
def test_kernels_fit_registers_and_use_wide_access(capability):
    faults = []
    for variant in VARIANTS:
        used = kernel_registers.compile_ahead(variant, capability)
        loads, stores = variant.wide(capability)
        if used.spills or used.stack_bytes or used.registers > 128:
            faults.append(f"{variant.title}: spills or fills the registers: {used}")
        if used.wide_loads < loads or used.wide_stores < stores:
            faults.append(f"{variant.title}: {loads} loads, {stores} stores needed: {used}")
    assert not faults, "\n".join(faults)
